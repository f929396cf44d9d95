"""A repository whose points are encrypted and compressed: a real guest goes in and comes out, and the key is nowhere to be read."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.model.repository import STATE_FILE
from tests.lab.command import run
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.live.folders import folder_for_qemu
from tests.live.repositories import ask, point, register
from tests.live.test_restore import Restored, files_of, write
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

KEY = "correct-horse-battery-staple-4711"
LOOK_S = 0.05


class ProcessList:
    """Reads the arguments of every process of this machine, again and again, until the end of the block."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.shown: set[bytes] = set()
        self.qemu_tools: set[bytes] = set()

    def __enter__(self) -> "ProcessList":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ends.wait(LOOK_S):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    arguments = process.read_bytes()
                except OSError:
                    continue
                if self._secret in arguments:
                    self.shown.add(arguments)
                if arguments.partition(b"\0")[0].rpartition(b"/")[2] in (b"qemu-nbd", b"qemu-img", b"qemu-storage-daemon"):
                    self.qemu_tools.add(arguments)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(KEY)
    return path


@pytest.fixture
def repository(lab: None) -> Iterator[Path]:
    with folder_for_qemu("encrypted") as folder:
        yield folder / "nas"


@pytest.fixture
def own_service(lab: None, tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "state", libvirt_uri=uri()) as process:
        yield process


@pytest.fixture
def restored(own_service: ServiceProcess) -> Iterator[Restored]:
    restored = Restored(own_service)
    yield restored
    for guest in restored.made:
        guest.destroy()


@pytest.fixture
def guest(lab: None) -> Iterator[LabGuest]:
    guest = LabGuest(GuestOptions(name=f"lab-t-encrypted-{os.getpid()}"))
    try:
        yield guest.start_and_wait()
    finally:
        guest.destroy()


def back_up(service: ServiceProcess, guest: LabGuest, repository_id: str) -> tuple[str, Path, str]:
    """Id of the point, its folder, the level of its disk."""
    job = service.run(guest.name, "backup", repository=repository_id, compress=True, compare="nothing")
    assert (job["state"], job["error"], job["verdict"]) == ("succeeded", None, "filesystem")
    (disk,) = job["result"]["backup"]["disks"]
    return job["recovery_point"]["id"], Path(job["result"]["backup"]["folder"]), disk["level"]


# QEMU takes seconds of CPU time for each container that it makes, and this test makes several.
@pytest.mark.timeout(300)
def test_a_guest_goes_into_an_encrypted_repository_and_comes_out_of_it(
    own_service: ServiceProcess, guest: LabGuest, repository: Path, restored: Restored, key: Path, tmp_path: Path
) -> None:
    service, name = own_service, restored.name()
    repository_id = register(service, repository, key=f"file:{key}")

    with ProcessList(KEY) as processes:
        write(guest, "first", megabytes=8)
        _, _, level_of_full = back_up(service, guest, repository_id)
        write(guest, "second")
        increment, folder, level = back_up(service, guest, repository_id)
        verified = service.wait(ask(service, "verify", recovery_point=increment))
        job = service.wait(ask(service, "restore", recovery_point=increment, mode="new", name=name, start=True))

    assert (level_of_full, level) == ("full", "bitmap")
    assert (verified["state"], verified["error"]) == ("succeeded", None)
    assert {proof["kind"]: proof["ok"] for proof in verified["result"]["verify"]["proofs"]} == {
        "bytes": True,
        "structure": True,
        "filesystem": True,
    }
    assert (job["state"], job["error"]) == ("succeeded", None)
    new = restored.guest(name)
    new.wait_agent()
    assert files_of(new) == {"first", "second"}
    assert_is_encrypted(repository / folder / "vda.qcow2")
    assert {file.name for file in (repository / folder).iterdir()} == {
        "vda.qcow2",
        "vda.blocks",
        STATE_FILE,
        "manifest.json",
        "manifest.sig",
    }
    assert_nobody_shows_the_key(service, processes)

    key.rename(tmp_path / "elsewhere")
    assert proves_its_bytes_without_a_key(service, increment)
    assert says_evidence_verify(service, repository / folder)
    assert_a_wrong_key_is_told(service, guest, repository_id, increment, key, tmp_path)


def proves_its_bytes_without_a_key(service: ServiceProcess, *points: str) -> bool:
    """The checksum of the stored bytes needs none. What the guest sees needs it."""
    jobs = [service.wait(ask(service, "verify", recovery_point=one, checks=["bytes"])) for one in points]
    more = service.wait(ask(service, "verify", recovery_point=points[0], checks=["bytes", "filesystem"]))
    assert (more["state"], more["error"]["code"]) == ("failed", "key_unusable")
    assert {point(service, one)["state"] for one in points} == {"sealed"}
    return all(job["state"] == "succeeded" and job["result"]["verify"]["proofs"][0]["ok"] for job in jobs)


def says_evidence_verify(service: ServiceProcess, folder: Path) -> bool:
    command = [sys.executable, "-m", "service.cli", "evidence", "verify", str(folder)]
    return subprocess.run(command, env=service.environment, check=False, capture_output=True, timeout=90).returncode == 0


def assert_a_wrong_key_is_told(
    service: ServiceProcess, guest: LabGuest, repository_id: str, point_id: str, key: Path, scratch: Path
) -> None:
    """Nothing is frozen for a backup, and nothing is written by a restore."""
    key.write_text("a wrong one")
    out = scratch / "out"
    out.mkdir()
    restore = service.wait(ask(service, "restore", recovery_point=point_id, mode="files", folder=str(out)))
    backup = service.run(guest.name, "backup", repository=repository_id)
    assert (restore["state"], restore["error"]["code"], list(out.iterdir())) == ("failed", "key_unusable", [])
    assert (backup["state"], backup["error"]["code"]) == ("failed", "key_unusable")
    assert "freeze" not in [phase["name"] for phase in backup["phases"]]
    assert guest.active_sources() == guest.disks


def assert_is_encrypted(image: Path) -> None:
    assert '"encrypted": true' in run(["qemu-img", "info", "--force-share", "--output=json", image])


def assert_nobody_shows_the_key(service: ServiceProcess, processes: ProcessList) -> None:
    assert processes.qemu_tools
    assert processes.shown == set()
    kept = [file for file in service.state_dir.rglob("*") if file.is_file()]
    assert {"stillpoint.db", "service.log"} <= {file.name for file in kept}
    assert [file.name for file in kept if KEY.encode() in file.read_bytes()] == []
