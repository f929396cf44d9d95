"""States in which nothing can work: readiness, doctor, log and metrics all tell, and a restart does not cover them up."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import DatabaseLost
from tests.service_process import ServiceProcess

TEST_DRIVER = "test:///default"
"""libvirt's own simulation, inside the process: it has one domain, `test`."""
MOUNT = 'mount -t tmpfs -o size=3m,mode=0700 tmpfs "$STILLPOINT_STATE_DIR" && exec "$@"'
IN_ITS_OWN_MOUNTS = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", MOUNT, "sh"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """Its end waits for a job that cannot write its end, because the database is gone."""
    with ServiceProcess(tmp_path / "state", libvirt_uri=TEST_DRIVER, shutdown_seconds="1") as process:
        yield process


def eventually(what: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def create(service: ServiceProcess) -> tuple[int, str | None]:
    answer = service.request("POST", "/api/v1/jobs", json={"kind": "preflight", "domain": "test"})
    return answer.status_code, answer.json().get("code")


def ready(service: ServiceProcess) -> tuple[int, str | None]:
    answer = service.request("GET", "/readyz")
    return answer.status_code, answer.json().get("code")


def metric(service: ServiceProcess, name: str) -> float:
    families = text_string_to_metric_families(service.request("GET", "/metrics").text)
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


def logged(service: ServiceProcess, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in service.log_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def doctor(service: ServiceProcess) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "doctor"]
    return subprocess.run(command, env=service.environment, capture_output=True, text=True, timeout=60, check=False)


def delete_database(service: ServiceProcess) -> None:
    for file in service.state_dir.glob("stillpoint.db*"):
        file.unlink()


def test_a_database_that_was_deleted_is_told_everywhere(service: ServiceProcess) -> None:
    assert (ready(service)[0], metric(service, "stillpoint_database_writable")) == (200, 1)
    eventually(lambda: create(service)[0] == 202)
    delete_database(service)

    assert ready(service) == (503, "database_replaced")
    assert create(service) == (503, "database_replaced")
    assert metric(service, "stillpoint_database_writable") == 0
    assert logged(service, "database_not_writable")[0]["code"] == "database_replaced"
    found = doctor(service)
    assert (found.returncode, "FAIL  database: " in found.stdout) == (1, True)


def test_after_a_restart_a_deleted_database_is_an_error_and_not_a_new_one(service: ServiceProcess) -> None:
    token = service.token
    delete_database(service)
    service.stop()
    for _ in range(2):
        with pytest.raises(AssertionError, match=DatabaseLost.title):
            service.start()
    assert not list(service.state_dir.glob("stillpoint.db*"))
    assert service.token == token


def test_a_new_beginning_is_possible_for_whoever_wants_it(service: ServiceProcess) -> None:
    token = service.token
    delete_database(service)
    service.stop()
    for trace in ("admin.token", "database.id"):
        (service.state_dir / trace).unlink()
    service.start()
    assert service.token != token
    assert ready(service)[0] == 200


def test_a_state_folder_without_room_is_told_everywhere(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "state", libvirt_uri=TEST_DRIVER, inside=IN_ITS_OWN_MOUNTS) as service:
        assert ready(service)[0] == 200
        folder = service.seen_by_it(service.state_dir)
        with (folder / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space left"):
            while True:
                ballast.write(b"x" * 1024)

        assert eventually(lambda: ready(service) == (503, "database_unavailable"))
        assert metric(service, "stillpoint_database_writable") == 0
        assert logged(service, "database_not_writable")[0]["code"] == "database_unavailable"
        (folder / "ballast").unlink()
        assert eventually(lambda: ready(service)[0] == 200)
        assert eventually(lambda: create(service)[0] == 202)
        assert metric(service, "stillpoint_database_writable") == 1


def test_files_of_the_state_folder_are_private_whoever_starts_the_service(tmp_path: Path) -> None:
    made = tmp_path / "made"
    service = ServiceProcess(tmp_path / "log", libvirt_uri=TEST_DRIVER)
    service.environment["STILLPOINT_STATE_DIR"] = str(made)
    before = os.umask(0o022)
    try:
        with service:
            eventually((made / "guards").exists)
            modes = {path.name: path.stat().st_mode & 0o777 for path in (made, *made.rglob("*"))}
    finally:
        os.umask(before)
    assert {"stillpoint.db", "stillpoint.db-wal", "stillpoint.db-shm", "admin.token", "database.id", "worker-hv1.lock"} <= set(modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
