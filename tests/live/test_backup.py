"""Backups of a real guest: full, then increments, restored with `qemu-img` alone, and what the guest's disks look like afterwards."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from tests.lab.disks import chain, needs_recovery
from tests.lab.guests import LabGuest
from tests.live.backups import BackupScene, are_identical, convert
from tests.live.test_main_job import overlays_beside

pytestmark = pytest.mark.live


@pytest.fixture
def scene(lab: None, sqlite_database: Database, tmp_path: Path) -> Iterator[BackupScene]:
    scene = BackupScene(sqlite_database, tmp_path)
    yield scene
    scene.close()


def write(guest: LabGuest, name: str, megabytes: int = 4) -> None:
    guest.exec("/bin/sh", "-c", f"dd if=/dev/urandom of=/data/{name} bs=1M count={megabytes} 2>/dev/null; sync")


def test_a_full_point_and_increments_on_it_restore_what_the_guest_had(scene: BackupScene, lab_guest: LabGuest, tmp_path: Path) -> None:
    write(lab_guest, "first", 16)
    full = scene.run(lab_guest.name)
    assert (full.state, full.error, full.verdict) == ("succeeded", None, "filesystem")
    assert scene.levels(full) == {"vda": "full"}
    _is_on_its_own_disks(lab_guest)

    write(lab_guest, "second")
    increment = scene.run(lab_guest.name)
    assert (increment.state, increment.error) == ("succeeded", None)
    assert scene.levels(increment) == {"vda": "bitmap"}, increment.result
    _is_on_its_own_disks(lab_guest)

    assert scene.manifest(increment).parents == (scene.point(full).id,)
    assert _copied(increment) < _copied(full)
    restored = convert(scene.image(increment), tmp_path / "restored.raw")
    assert not needs_recovery(restored)
    assert _files_of(restored, tmp_path) >= {"first", "second"}
    assert "second" not in _files_of(convert(scene.image(full), tmp_path / "earlier.raw"), tmp_path)


def test_an_increment_is_what_a_full_copy_of_the_same_disk_would_be(scene: BackupScene, lab_guest: LabGuest, tmp_path: Path) -> None:
    scene.run(lab_guest.name)
    write(lab_guest, "second", 8)
    lab_guest.exec("/bin/sh", "-c", "rm -f /data/second; sync")
    write(lab_guest, "third")
    lab_guest.shutdown()
    disk = lab_guest.disks["vda"]
    shutil.copy(disk, tmp_path / "disk.qcow2")

    increment = scene.run(lab_guest.name)

    assert (increment.state, scene.levels(increment)) == ("succeeded", {"vda": "bitmap"}), increment.error
    assert are_identical(scene.image(increment), tmp_path / "disk.qcow2")
    assert lab_guest.active_sources() == lab_guest.disks


def _is_on_its_own_disks(guest: LabGuest) -> None:
    assert guest.active_sources() == guest.disks
    assert overlays_beside(guest) == set()
    assert chain(guest.disks["vda"]) == [guest.disks["vda"]]
    assert guest.freeze_status() == "thawed"


def _files_of(image: Path, scratch: Path) -> set[str]:
    listed = subprocess.run(["debugfs", "-R", "ls -p /", str(image)], check=True, capture_output=True, text=True).stdout
    return {line.split("/")[5] for line in listed.splitlines() if line.startswith("/")}


def _copied(job: Job) -> int:
    assert job.result is not None
    return sum(int(disk["copied_bytes"]) for disk in job.result["backup"]["disks"])
