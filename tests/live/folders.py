"""Folders of tests, which QEMU's user must be able to enter."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.places import open_dir, run_dir


def open_to_qemu(path: Path) -> Path:
    """Let every user pass the folders above `path`, below /tmp: pytest makes them for one user alone. `path` itself stays as it is.

    Another run of pytest closes the uppermost of them again when it begins: where that may happen, take `folder_for_qemu`.
    """
    for parent in path.parents:
        if parent == Path(parent.anchor) or parent.stat().st_uid != os.geteuid():
            break
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & 0o001:
            parent.chmod(mode | 0o011)
    return path


@contextmanager
def folder_for_qemu(name: str) -> Iterator[Path]:
    """A folder that QEMU's user can enter whatever other tests do, removed at the end."""
    folder = open_dir(run_dir() / f"{name}-{uuid.uuid4().hex[:8]}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
