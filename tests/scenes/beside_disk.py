"""Points beside the disk of a fake domain, in real images: what each of them shows is compared before and after a merge."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from service.records import queue
from tests.fakes import FakeDisk, FakeDomain
from tests.scenes.host import HOST, Scene

MIB = 1 << 20


class BesideScene(Scene):
    """`points`: ids, oldest first. Before each point, and after the last one, the guest has written something of its own."""

    def __init__(self, database: Database, folder: Path, disks: Sequence[str] = ("vda",), **settings: Any) -> None:
        super().__init__(database, folder, disks, **settings)
        self.domain.merges_are_real = True
        with database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:maintenance", 4)
        self.point_ids: list[str] = []

    def disk(self, target: str, domain: str = "db1", **options: Any) -> FakeDisk:
        image = self.images / f"{domain}-{target}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "8M"], check=True, capture_output=True)
        return FakeDisk(target, image, size=8 * MIB, **options)

    def take(self, count: int) -> list[str]:
        """The ids of the points. The guest writes before the first one, between them, and after the last one."""
        for _ in range(count):
            self.guest_writes(len(self.point_ids) + 1)
            job = self.run("snapshot")
            assert job.recovery_point is not None, job.error
            self.point_ids.append(job.recovery_point["id"])
        self.guest_writes(len(self.point_ids) + 1)
        return self.point_ids

    def guest_writes(self, pattern: int) -> None:
        """A part that is written each time, and a part that is written once."""
        for target in self.domain_targets():
            for at in (0, pattern * 512 * 1024):
                command = ["qemu-io", "-f", "qcow2", "-c", f"write -q -P {pattern} {at} 256k", self.domain.source(target)]
                subprocess.run(command, check=True, capture_output=True)

    def domain_targets(self) -> list[str]:
        return [disk.target for disk in self.domain.disks]

    def ask_merge(self, *point_ids: str, domain: FakeDomain | None = None, max_attempts: int = 3) -> str:
        return self.ask("merge", domain, max_attempts=max_attempts, recovery_points=list(point_ids), remove=True)

    def merge(self, *point_ids: str) -> Job:
        job_id = self.ask_merge(*point_ids)
        self.execution.execute(self.claim())
        return self.job(job_id)

    def again(self, job_id: str) -> Job:
        """The next attempt."""
        self.execution.execute(self.claim())
        return self.job(job_id)

    def point(self, point_id: str) -> RecoveryPoint:
        with self.database.read() as session:
            return session.get_one(RecoveryPoint, point_id)

    def there(self) -> list[str]:
        """The ids of the points on record, oldest first."""
        return [point_id for point_id in self.point_ids if any(point.id == point_id for point in self.points())]

    def shown(self) -> dict[str, str]:
        """By point and disk, and for the guest now: a digest of what is seen."""
        seen = {f"{point.id} {disk['target']}": digest(disk["file"]) for point in self.points() for disk in point.disks}
        return seen | {f"guest {target}": digest(self.domain.source(target)) for target in self.domain_targets()}

    def files(self) -> set[str]:
        return {str(path) for path in self.images.iterdir()}

    def chain(self, target: str = "vda") -> list[str]:
        """As the headers say, the active file first."""
        found, path = [], self.domain.source(target)
        while path:
            found.append(path)
            info = subprocess.run(["qemu-img", "info", "-U", path], check=True, capture_output=True, text=True).stdout
            path = next((line.partition(": ")[2].split(" (")[0] for line in info.splitlines() if line.startswith("backing file:")), "")
        return found


def digest(image: str) -> str:
    shown = Path(image).with_suffix(".shown")
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, str(shown)], check=True, capture_output=True)
    try:
        return hashlib.sha256(shown.read_bytes()).hexdigest()
    finally:
        shown.unlink()
