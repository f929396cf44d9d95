"""Checks that a folder has room for the writes of a job. The space is allocated, and freed at once."""

import os
import tempfile
from pathlib import Path

ROOM_BYTES = 256 * 1024
"""Bytes that must be free. SQLite can store a small change in the pages that it has, but a job needs new pages."""


def find(folder: Path) -> None:
    """Raises OSError: the folder is full, read-only, or gone."""
    # It has no name, where the filesystem knows such files: a process that is killed here leaves nothing.
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, ROOM_BYTES)
