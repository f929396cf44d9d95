"""A guest whose disk is lost comes back as it was at one of its points: with every record that was acknowledged before, and none of later.

The guest writes numbered records and makes each durable. It is backed up by one full point and five increments. Then its disk is gone.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.lab.console import Console
from tests.lab.daemon import uri
from tests.lab.disks import chain, sequences
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.live.backups import are_identical
from tests.live.folders import folder_for_qemu
from tests.live.repositories import ask, eventually, point, register, repository, wait_for_phase
from tests.live.test_restore import Restored, files_of
from tests.service_process import ServiceProcess
from tests.test_restore_by_hand import Person, Repository

pytestmark = pytest.mark.live

RECORDS = {"size_mb": 16, "interval_us": 40_000, "sync_every": 1}
"""At most 25 a second, each with an fdatasync. The file has room for all that this test needs, so that no record is written over."""
INCREMENTS = 5
MIDDLE = 3


@dataclass(frozen=True)
class Note:
    """What is known of a point without it. `acknowledged`: the last record that the guest knew to be durable before the job was asked for.
    `later`: a record that was written after the thaw. `files`: those that were written before the freeze."""

    point: str
    folder: Path
    acknowledged: int
    later: int
    files: frozenset[str]


@dataclass(frozen=True)
class Lost:
    guest: LabGuest
    domain_id: str
    repository: Path
    notes: list[Note]


@pytest.fixture(scope="module")
def lost(service: ServiceProcess) -> Iterator[Lost]:
    """The guest is off, and its disk is not there any more."""
    guest = LabGuest(GuestOptions(name=f"lab-t-lost-disk-{os.getpid()}", meter=RECORDS))
    with folder_for_qemu("repository") as folder:
        try:
            guest.start_and_wait()
            eventually(lambda: any(heartbeat.acknowledged > 0 for heartbeat in guest.heartbeats()))
            repository_id = register(service, folder / "nas")
            notes = [back_up(service, guest, repository_id, folder / "nas", number) for number in range(1 + INCREMENTS)]
            guest.power_off()
            guest.disks["vda"].unlink()
            # What the restored guest says begins in a new file.
            guest.console.path.unlink()
            yield Lost(guest, guest.domain.UUIDString(), folder / "nas", notes)
        finally:
            guest.destroy()


@pytest.fixture
def restored(service: ServiceProcess) -> Iterator[Restored]:
    restored = Restored(service)
    yield restored
    for guest in restored.made:
        guest.destroy()


def back_up(service: ServiceProcess, guest: LabGuest, repository_id: str, path: Path, number: int) -> Note:
    """One file is written before the job is asked for, and one as soon as the guest can write again."""
    touch(guest, f"before-{number}")
    acknowledged = guest.heartbeats()[-1].acknowledged
    job_id = service.create(guest.name, "backup", repository=repository_id)
    wait_for_phase(service, job_id)
    touch(guest, f"after-{number}")
    job = service.wait(job_id)
    assert (job["state"], job["error"], job["verdict"]) == ("succeeded", None, "filesystem")
    assert [disk["level"] for disk in job["result"]["backup"]["disks"]] == ["bitmap" if number else "full"]
    guest.console.wait_heartbeat(60)
    files = {f"{when}-{earlier}" for earlier in range(number) for when in ("before", "after")} | {f"before-{number}"}
    return Note(
        point=job["recovery_point"]["id"],
        folder=path / job["result"]["backup"]["folder"],
        acknowledged=acknowledged,
        later=guest.heartbeats()[-1].sequence,
        files=frozenset(files),
    )


def touch(guest: LabGuest, name: str) -> None:
    guest.exec("/bin/sh", "-c", f"echo {name} > /data/{name}; sync")


def records_of(image: Path) -> list[int]:
    return [number for number in sequences(image) if number > 0]


def files_in(image: Path, scratch: Path) -> set[str]:
    """Without a boot: the guest-visible bytes, read by ext4's own tool."""
    raw = scratch / "files.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(raw)], check=True)
    listed = subprocess.run(["debugfs", "-R", "ls -p /", str(raw)], check=True, capture_output=True, text=True).stdout
    names = {line.split("/")[5] for line in listed.splitlines() if line.startswith("/")}
    return {name for name in names if name.startswith(("before-", "after-"))}


def holds_what_the_point_must(records: list[int], note: Note) -> None:
    assert records == list(range(1, len(records) + 1))
    assert 0 < note.acknowledged <= len(records) < note.later


def console_file(guest: LabGuest) -> Path:
    (port,) = ElementTree.fromstring(guest.domain.XMLDesc(0)).findall("devices/serial[@type='file']/source")[:1]
    return Path(port.get("path", ""))


def by_hand(lost: Lost, note: Note, target: Path) -> Path:
    """The disk, restored by the commands of docs/restore-by-hand.md."""
    done = Person(Repository(lost.repository), note.folder.name, target, domain=lost.domain_id).does("plain")
    assert (done.returncode, done.stderr) == (0, "")
    return target / "vda.qcow2"


def test_one_call_brings_the_guest_back_in_its_place(service: ServiceProcess, lost: Lost, tmp_path: Path) -> None:
    note, guest = lost.notes[-1], lost.guest
    records = records_of(by_hand(lost, note, tmp_path / "by-hand"))
    assert not guest.disks["vda"].exists()

    job = service.wait(ask(service, "restore", recovery_point=note.point, mode="in_place", start=True))

    assert (job["state"], job["error"]) == ("succeeded", None)
    guest.wait_ready()
    guest.wait_agent()
    holds_what_the_point_must(records, note)
    # Before the guest wrote anything it looked for the last record on its disk.
    assert guest.heartbeats()[0].sequence == records[-1]
    assert files_of(guest) == note.files
    assert chain(guest.active_sources()["vda"]) == [guest.active_sources()["vda"]]


@pytest.mark.parametrize("number", [0, MIDDLE, INCREMENTS])
def test_an_earlier_point_is_the_same_by_the_service_and_by_hand(service: ServiceProcess, lost: Lost, tmp_path: Path, number: int) -> None:
    note = lost.notes[number]
    out = tmp_path / "out"
    out.mkdir()

    job = service.wait(ask(service, "restore", recovery_point=note.point, mode="files", folder=str(out)))
    disk = by_hand(lost, note, tmp_path / "by-hand")

    assert (job["state"], job["error"]) == ("succeeded", None)
    assert are_identical(out / "vda.qcow2", disk)
    holds_what_the_point_must(records_of(disk), note)
    assert files_in(disk, tmp_path) == note.files


def test_a_service_with_an_empty_database_imports_the_repository_and_brings_the_guest_back(
    lost: Lost, restored: Restored, tmp_path: Path
) -> None:
    note = lost.notes[-1]
    records = records_of(by_hand(lost, note, tmp_path / "by-hand"))
    name = restored.name()
    with ServiceProcess(tmp_path / "state", libvirt_uri=uri()) as another:
        repository_id = register(another, lost.repository)
        assert another.request("GET", "/api/v1/recovery-points").json()["items"] == []
        assert another.request("POST", f"/api/v1/repositories/{repository_id}/import").status_code == 202
        eventually(lambda: repository(another, repository_id)["imported_at"])
        found = repository(another, repository_id)["import_result"]
        assert (found["added"], found["refused"], found["incomplete"]) == (1 + INCREMENTS, [], [])
        assert point(another, note.point)["verdict"] == "filesystem"

        job = another.wait(ask(another, "restore", recovery_point=note.point, mode="new", name=name, start=True))

    assert (job["state"], job["error"]) == ("succeeded", None)
    guest = restored.guest(name)
    guest.wait_agent()
    assert files_of(guest) == note.files
    assert Console(console_file(guest)).heartbeats()[0].sequence == records[-1]
    holds_what_the_point_must(records, note)
