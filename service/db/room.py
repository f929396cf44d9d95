"""Checks that a folder has room for the writes of a job. The space is allocated, and freed at once."""

import os
from contextlib import suppress
from pathlib import Path

ROOM_BYTES = 256 * 1024
"""Bytes that must be free. SQLite can store a small change in the pages that it has, but a job needs new pages."""


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
