"""The file of a SQLite database: whether it can be one, and whether it is still the one that this process began with.

SQLite goes on writing into a file that was deleted or replaced under it: everything would look well, and nothing would be kept.
"""

import os
import stat
from pathlib import Path

from service.errors import DatabaseReplaced, DatabaseUnusable

MAGIC = b"SQLite format 3\0"
PRIVATE = 0o600


class DatabaseFile:
    """One per engine. It is remembered when the first connection has opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[int, int] | None = None

    def before_connecting(self) -> None:
        """Raises DatabaseUnusable, DatabaseReplaced. A file that is not there yet is made, for nobody else to read."""
        if self._known is not None:
            # SQLite would make a new file in the place of one that is gone.
            self.check_unchanged()
            return
        try:
            self._make_or_look()
        except OSError as error:
            raise DatabaseUnusable(path=str(self.path), reason=error.strerror or str(error)) from error

    def connected(self) -> None:
        if self._known is None:
            self._known = self._identity()

    def check_unchanged(self) -> None:
        """Raises DatabaseReplaced. Costs some microseconds: every write asks."""
        if self._known is None:
            return
        current = self._identity()
        if current != self._known:
            raise DatabaseReplaced(what=f"{self.path} was {'deleted' if current is None else 'replaced by another file'}")

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _make_or_look(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            # -wal and -shm get the mode of the file that they belong to.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
        except FileExistsError:
            self._look()

    def _look(self) -> None:
        if not stat.S_ISREG(self.path.stat().st_mode):
            raise DatabaseUnusable(path=str(self.path), reason="it is not a file")
        with self.path.open("r+b") as file:
            beginning = file.read(len(MAGIC))
        if beginning not in (MAGIC, b""):
            raise DatabaseUnusable(path=str(self.path), reason="it is not a SQLite database")
