"""The lock file of a host's worker. It refuses a second worker with this state folder.

A worker that gets the lock of a dead worker can prove that the other is dead.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from service.errors import StateFolderUnwritable, WorkerAlreadyRuns
from service.this_boot import boot_id


@dataclass(frozen=True)
class LockId:
    """Identifies the lock file that a worker holds. `file` is an id in the file. A copy of the file has another `inode`.

    `boot` identifies the boot of the running kernel.
    """

    file: str
    boot: str
    inode: str

    def __str__(self) -> str:
        return f"{self.file} {self.boot} {self.inode}"

    @classmethod
    def read(cls, text: str | None) -> "LockId | None":
        parts = (text or "").split(" ")
        return cls(*parts) if len(parts) == 3 else None

    def proves_death_of(self, other: "LockId | None") -> bool:
        """The holder of a lock knows that the earlier holder of the same lock is dead."""
        return self == other and "" not in (self.file, self.boot)

    def is_of_an_earlier_boot(self, other: "LockId | None") -> bool:
        """The other lock is from an earlier boot of this machine, or from a copy of the machine. The two cannot be told apart."""
        return other is not None and self.file == other.file and self.boot != other.boot


class HostLock:
    def __init__(self, state_dir: Path, host_id: str) -> None:
        self._path = state_dir / f"worker-{host_id}.lock"
        self._host_id = host_id
        self._file: IO[str] | None = None

    def take(self) -> LockId:
        """Raises WorkerAlreadyRuns, StateFolderUnwritable."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = self._path.open("a+")
        except OSError as error:
            raise StateFolderUnwritable(path=str(self._path), reason=error.strerror or str(error)) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise WorkerAlreadyRuns(lock=str(self._path), host=self._host_id) from error
        status = os.fstat(self._file.fileno())
        return LockId(_name_of(self._file), boot_id(), f"{status.st_dev}:{status.st_ino}")

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _name_of(file: IO[str]) -> str:
    """The id in the lock file. An empty file gets a new id."""
    file.seek(0)
    name = file.read(64).strip()
    if not name:
        name = str(uuid4())
        file.write(f"{name}\n")
        file.flush()
    return name
