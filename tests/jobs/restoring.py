"""A host with one fake domain on a real disk, and a repository with points of it: for the tests of the kind `restore`."""

import subprocess
from pathlib import Path
from typing import Any

from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from service.model.kinds import Lane
from service.records import queue
from tests.fakes import FakeDomain
from tests.repository.disks import MIB, Disk
from tests.scenes.host import HOST, Scene
from tests.scenes.sealed_points import SealedPoints

SIZE = 8 * MIB


class RestoreScene(Scene):
    """`domain` is shut off. Its disk holds the byte 1 at the first point (`full`), and 2 at the second (`point`), which inherits."""

    def __init__(self, database: Database, folder: Path, *, key: Path | None = None) -> None:
        """`key`: the file with the key of the repository."""
        super().__init__(database, folder)
        with database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:{Lane.transfer.value}", 4)
        self.repository = folder / "repository"
        self.disk_file = Path(self.domain.source("vda"))
        self.live = self.write_disk(1)
        self.sealed = SealedPoints(database, self.repository, HOST, f"file:{key}" if key is not None else None)
        self.full = self.seal()
        self.live = self.write_disk(2)
        self.point = self.seal(parent=self.full)
        self.write_disk(9)
        self.domain.shut_off()

    def write_disk(self, byte: int, path: Path | None = None) -> Disk:
        path = path or self.disk_file
        path.unlink(missing_ok=True)
        disk = Disk.make(path, SIZE)
        disk.write((byte, 0, 3 * MIB))
        return disk

    def seal(self, **more: Any) -> str:
        definition = more.pop("definition", None) or self.host.guest("db1").inactive_xml()
        disks = {"vda": self.disk_file} | more.pop("disks", {})
        return self.sealed.seal((self.domain.uuid(), self.domain.name()), disks, definition, **more)

    def restore(self, mode: str, point: str | None = None, **request: Any) -> Job:
        job_id = self.ask_restore(mode, point, **request)
        self.execution.execute(self.claim())
        return self.job(job_id)

    def ask_restore(self, mode: str, point: str | None = None, *, max_attempts: int = 3, **request: Any) -> str:
        return self.ask("restore", max_attempts=max_attempts, recovery_point=point or self.point, mode=mode, **request)

    def point_row(self, point: str | None = None) -> RecoveryPoint:
        with self.database.read() as session:
            return session.get_one(RecoveryPoint, point or self.point)

    def new_domains(self) -> list[FakeDomain]:
        return [domain for domain in self.host.domains if domain.exists and domain is not self.domain]

    def new_files(self) -> list[str]:
        """The files beside the disk that were not there before."""
        return sorted(path.name for path in self.images.iterdir() if path != self.disk_file)


def first_byte(path: str | Path) -> int:
    """What a guest sees at the beginning of the disk. qemu-io fails where the bytes are not the wanted ones."""
    for byte in range(16):
        asked = ["qemu-io", "-U", "-r", "-c", f"read -q -P {byte} 0 512", str(path)]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return byte
    raise AssertionError(f"{path} begins with another byte")
