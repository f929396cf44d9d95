"""The API on a machine without libvirt-python: it starts, lists, and takes a job for a host elsewhere."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database, open_engine
from tests.api.world import add_domain, add_host
from tests.databases import migrate, sqlite_url
from tests.service_process import ServiceProcess

REFUSES = 'raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)\n'


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """`stillpoint serve` that finds no libvirt, with one host and its domain `db1` in the database."""
    hidden, state_dir = tmp_path / "hidden", tmp_path / "state"
    for folder in (hidden, state_dir):
        folder.mkdir()
    for module in ("libvirt", "libvirt_qemu"):
        (hidden / f"{module}.py").write_text(REFUSES)
    url = sqlite_url(state_dir / "stillpoint.db")
    migrate(url)
    database = Database(open_engine(url))
    with database.write() as session:
        add_host(session)
        add_domain(session, "db1")
    database.dispose()
    process = ServiceProcess(state_dir, libvirt_uri="test:///default", command="serve")
    process.environment["PYTHONPATH"] = str(hidden)
    with process:
        yield process


def test_the_api_starts_answers_a_list_and_takes_a_job(service: ServiceProcess) -> None:
    domains = service.request("GET", "/api/v1/domains")
    assert [domain["name"] for domain in domains.json()["items"]] == ["db1"]

    job_id = service.create("db1")

    assert service.job(job_id)["state"] == "queued"
    assert [job["id"] for job in service.request("GET", "/api/v1/jobs").json()["items"]] == [job_id]


@pytest.mark.parametrize("module", ["libvirt", "libvirt_qemu", "service.hypervisor.connection"])
def test_such_a_process_does_miss_libvirt(service: ServiceProcess, module: str) -> None:
    imported = subprocess.run(
        [sys.executable, "-c", f"import {module}"], env=service.environment, capture_output=True, text=True, check=False
    )
    assert imported.returncode == 1
    assert "ModuleNotFoundError: No module named 'libvirt" in imported.stderr
