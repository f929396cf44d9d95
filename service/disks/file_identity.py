"""Which file it was that we made: under its name another may lie by now."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from service.model import image_header
from service.model.file_identity import FileIdentity


def unlink(path: Path, made: FileIdentity) -> None:
    """The file that we made; another one under its name stays. Raises OSError."""
    with suppress(FileNotFoundError):
        if made.is_of(path.lstat()):
            path.unlink()


def looks_like_ours(path: Path, found: os.stat_result, base: str) -> bool:
    """For a file whose maker died before it could tell which one it made: empty still, or a qcow2 on this very base."""
    if not stat.S_ISREG(found.st_mode):
        return False
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not os.path.samestat(found, os.fstat(file.fileno())):
            return False
        head = file.read(image_header.READ_BYTES)
    header = image_header.parse(head)
    # qemu-img writes zeros before it writes the header.
    return not head.strip(b"\0") or (header is not None and header.below == base)
