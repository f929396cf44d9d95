"""Points beside the disk of a real guest are merged while the guest runs and writes, and while it is off."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from tests.lab.disks import chain
from tests.lab.guests import LabGuest
from tests.live.backups import BackupScene, are_identical
from tests.live.test_backup_increments import kill_qemu, level_and_truth

pytestmark = pytest.mark.live
MIB = 1 << 20


class Points(BackupScene):
    """Points of the guest's disk beside it, oldest first, and a copy of what each of them showed when it was taken."""

    def __init__(self, database: Database, folder: Path, guest: LabGuest) -> None:
        super().__init__(database, folder)
        self.guest = guest
        self.copies = folder / "copies"
        self.copies.mkdir()
        self.ids: list[str] = []

    def take(self, count: int) -> None:
        for _ in range(count):
            self.guest_writes(f"before-{len(self.ids)}")
            job = self.run(self.guest.name, "snapshot")
            assert job.state == "succeeded", job.error
            point = self.point(job)
            self.ids.append(point.id)
            subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", point.disks[0]["file"], self.copies / point.id], check=True)
        self.guest_writes("after-all")

    def guest_writes(self, name: str, megabytes: int = 3) -> None:
        self.guest.exec("/bin/sh", "-c", f"dd if=/dev/urandom of=/data/{name}.bin bs=1M count={megabytes} conv=fsync 2>/dev/null")

    def merge(self, *point_ids: str) -> Job:
        job_id = self.ask_merge(*point_ids)
        self.execute()
        return self.job(job_id)

    def ask_merge(self, *point_ids: str) -> str:
        return self.ask(self.guest.name, "merge", recovery_points=list(point_ids), remove=True)

    def on_record(self) -> list[RecoveryPoint]:
        with self.database.read() as session:
            return [point for each in self.ids if (point := session.get(RecoveryPoint, each)) is not None]

    def all_show_what_they_showed(self, gone: str | None = None) -> bool:
        points = [point for point in self.on_record() if point.id != gone]
        return all(are_identical(Path(point.disks[0]["file"]), self.copies / point.id) for point in points)

    def files(self) -> list[Path]:
        return chain(self.guest.active_sources()["vda"])

    def digests(self) -> dict[str, str]:
        """Of the files in the guest, as it sees them."""
        lines = self.guest.exec("/bin/sh", "-c", "cd /data; sha256sum *.bin").splitlines()
        return {name: digest for digest, name in (line.split() for line in lines)}


@pytest.fixture
def points(lab: None, sqlite_database: Database, tmp_path: Path, lab_guest: LabGuest) -> Iterator[Points]:
    points = Points(sqlite_database, tmp_path, lab_guest)
    points.take(3)
    yield points
    points.close()


def test_the_middle_the_oldest_and_the_newest_go_while_the_guest_writes(points: Points) -> None:
    guest, first = points.guest, points.guest.disks["vda"]
    assert len(points.files()) == 4
    for number, gone in enumerate([points.ids[1], points.ids[0], points.ids[2]]):
        points.guest_writes(f"meanwhile-{number}")
        seen = points.digests()
        overlay = Path(next(point for point in points.on_record() if point.id == gone).disks[0]["overlay"])
        job = points.merge(gone)
        assert (job.state, job.error, [phase["outcome"] for phase in job.phases]) == ("succeeded", None, ["ok"] * 3), job.phases
        assert points.all_show_what_they_showed()
        assert (len(points.files()), overlay.exists(), points.digests()) == (3 - number, False, seen)
        named = [disk["file"] for point in points.on_record() for disk in point.disks]
        assert set(named) <= {str(path) for path in points.files()[1:]}
    assert (points.files(), points.on_record()) == ([first], [])
    seen = points.digests()
    guest.shutdown()
    assert subprocess.run(["qemu-img", "check", "-q", first], check=False).returncode == 0
    guest.start_and_wait()
    assert points.digests() == seen


def test_the_definition_of_the_next_start_does_not_need_the_file(points: Points) -> None:
    seen = points.digests()
    assert points.merge(points.ids[1]).error is None
    points.guest.shutdown()
    points.guest.start_and_wait()
    assert points.digests() == seen
    assert points.all_show_what_they_showed()


def test_a_domain_that_is_off_is_merged_by_qemu_img_and_starts_afterwards(points: Points) -> None:
    seen = points.digests()
    points.guest.shutdown()
    assert points.merge(points.ids[1]).error is None
    assert points.all_show_what_they_showed()
    assert points.merge(points.ids[2]).error is None
    assert points.all_show_what_they_showed()
    assert len(points.files()) == 2
    points.guest.start_and_wait()
    assert points.digests() == seen


def test_a_qemu_that_is_killed_in_the_middle_of_a_merge_costs_nothing(points: Points) -> None:
    gone, disk = points.ids[1], points.on_record()[1].disks[0]
    slow_commit(points, disk)
    kill_qemu(points.guest)
    assert points.all_show_what_they_showed(gone)
    points.guest.start_and_wait()
    assert points.merge(gone).error is None
    assert points.all_show_what_they_showed()
    assert len(points.files()) == 3


def test_a_merge_that_is_under_way_already_is_waited_for(points: Points) -> None:
    """As after the death of the worker: QEMU goes on. It is slow until the job has planned, so that the job finds it at work."""
    gone, disk = points.ids[1], points.on_record()[1].disks[0]
    job_id = points.ask_merge(gone)
    run = points.claim()
    slow_commit(points, disk)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(points.execute, run)
        while points.job(job_id).phase != "merge" and not ended.done():
            time.sleep(0.01)
        points.guest.domain.blockJobSetSpeed("vda", 0)
        ended.result()
    assert points.job(job_id).error is None
    assert points.all_show_what_they_showed()


def slow_commit(points: Points, disk: dict[str, Any]) -> None:
    """The block job of the merge, one MiB a second, after its first bytes."""
    domain = points.guest.domain
    domain.blockCommit("vda", disk["file"], disk["overlay"], 1, 0)
    until = time.monotonic() + 20
    while not (domain.blockJobInfo("vda", 0) or {}).get("cur"):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_an_increment_after_a_merge_is_right(points: Points) -> None:
    """Bitmaps that began in the file that goes are not lost unseen."""
    assert points.run(points.guest.name).state == "succeeded"
    points.guest_writes("since-the-backup")
    points.take(1)
    points.guest_writes("since-the-last-point")
    assert points.merge(points.ids[2], points.ids[1]).error is None
    points.guest_writes("since-the-merge")
    assert level_and_truth(points, points.guest) in ("bitmap", "full")


def test_an_increment_after_a_merge_of_a_domain_that_is_off_is_right(points: Points) -> None:
    assert points.run(points.guest.name).state == "succeeded"
    points.guest_writes("since-the-backup")
    points.take(1)
    points.guest_writes("since-the-last-point")
    points.guest.shutdown()
    assert points.merge(points.ids[2], points.ids[1]).error is None
    points.guest.start_and_wait()
    points.guest_writes("since-the-merge")
    assert level_and_truth(points, points.guest) in ("bitmap", "full")
