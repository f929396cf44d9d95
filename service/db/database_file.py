"""The file of a SQLite database: checks that the file can be a database, and that it is still the file that this process opened first.

SQLite continues to write into a file that was deleted or replaced. Everything would look well, and nothing would be kept.
"""

import os
import stat
from pathlib import Path

from service.errors import DatabaseReplaced, DatabaseUnusable

MAGIC = b"SQLite format 3\0"
PRIVATE = 0o600


class DatabaseFile:
    """One object per engine. The identity of the file is stored when the first connection has opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[int, int] | None = None

    def before_connecting(self) -> None:
        """Check the file, or make it with mode 0600. Raises DatabaseUnusable, DatabaseReplaced."""
        if self._known is not None:
            # If the file is gone, SQLite would make a new one.
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
        """Raises DatabaseReplaced. Every write calls this, which costs some microseconds."""
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
            # SQLite gives -wal and -shm the mode of this file.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
        except FileExistsError:
            self._look()

    def _look(self) -> None:
        if not stat.S_ISREG(self.path.stat().st_mode):
            raise DatabaseUnusable(path=str(self.path), reason="the path is not a file")
        with self.path.open("r+b") as file:
            beginning = file.read(len(MAGIC))
        if beginning not in (MAGIC, b""):
            raise DatabaseUnusable(path=str(self.path), reason="the file is not a SQLite database")
