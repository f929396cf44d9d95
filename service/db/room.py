"""Whether a folder takes what a job may have to write: asked of the file system, and given back at once."""

import os
from contextlib import suppress
from pathlib import Path

ROOM_BYTES = 256 * 1024
"""SQLite finds room for a small change in what it has; a job needs new pages."""


def find(folder: Path) -> None:
    """Raises OSError: the folder is full, read-only, or gone."""
    path = folder / f".room.{os.getpid()}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, ROOM_BYTES)
        finally:
            os.close(descriptor)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
