"""The commands about repositories and proofs, against a real service in processes of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenes.sealed import Sealed
from tests.service_process import ServiceProcess

MIB = 1 << 20


class Commands:
    """`stillpoint …` on the machine of the service: where it listens and a token are found in its settings."""

    def __init__(self, service: ServiceProcess) -> None:
        self.environment = service.environment

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service.cli", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("service")
    with ServiceProcess(folder, libvirt_uri="test:///default", poll_seconds="0.1", repository_look_seconds="0.5") as process:
        yield process


@pytest.fixture
def stillpoint(service: ServiceProcess) -> Commands:
    return Commands(service)


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    made = Sealed(tmp_path / "repository")
    made.seal((1, 0, MIB))
    made.seal((2, MIB, MIB))
    return made


def point(service: ServiceProcess, point_id: str) -> dict[str, Any]:
    answer = service.request("GET", f"/api/v1/recovery-points/{point_id}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_repository_is_registered_listed_and_checked(stillpoint: Commands, tmp_path: Path) -> None:
    added = stillpoint("repository", "add", "new", str(tmp_path / "new"))
    assert (added.returncode, added.stderr) == (0, "")
    described = json.loads((tmp_path / "new" / "repository.json").read_text())
    assert described["id"] in added.stdout
    assert described["id"] in stillpoint("repository", "list").stdout
    assert stillpoint("repository", "check", "new").returncode == 0


def test_a_folder_with_something_else_is_refused(stillpoint: Commands, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_text("cat")
    done = stillpoint("repository", "add", "photos", str(tmp_path))
    assert (done.returncode, [file.name for file in tmp_path.iterdir()]) == (1, ["cat.jpg"])


def test_points_are_imported_and_verified_and_a_damaged_one_is_refused(
    service: ServiceProcess, stillpoint: Commands, sealed: Sealed
) -> None:
    assert stillpoint("repository", "add", "nas", str(sealed.path)).returncode == 0
    assert stillpoint("repository", "import", "nas").returncode == 0
    first, top = sealed.points
    verified = stillpoint("verify", top, "--json")
    assert (verified.returncode, json.loads(verified.stdout)["state"]) == (0, "succeeded")
    assert [proof["ok"] for proof in point(service, top)["proofs"] if proof["kind"] == "bytes"] == [True]

    sealed.damage(top)
    damaged = stillpoint("verify", top, "--json")
    assert damaged.returncode == 1
    assert json.loads(damaged.stdout)["error"]["facts"]["next_good"] == first
    assert (point(service, top)["state"], point(service, first)["state"]) == ("damaged", "sealed")


def test_a_verify_of_a_point_that_nobody_knows_is_an_error(stillpoint: Commands) -> None:
    assert stillpoint("verify", "7f6e3f0c-0000-4000-8000-000000000009").returncode == 1
