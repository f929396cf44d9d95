"""Recognises a file that the service made. Another file may have taken its name meanwhile."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from service.model import image_header
from service.model.file_identity import FileIdentity


def unlink(path: Path, made: FileIdentity) -> None:
    """Removes the file that was made. Another file under this name stays. Raises OSError."""
    with suppress(FileNotFoundError):
        if made.is_of(path.lstat()):
            path.unlink()


def looks_like_ours(path: Path, status: os.stat_result, base: str) -> bool:
    """Whether the file is still empty, or a qcow2 on exactly this base.

    Used if the worker died before it recorded the identity of the file.
    """
    if not stat.S_ISREG(status.st_mode):
        return False
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not os.path.samestat(status, os.fstat(file.fileno())):
            return False
        head = file.read(image_header.READ_BYTES)
    header = image_header.parse(head)
    # qemu-img writes zeros before it writes the header.
    return not head.strip(b"\0") or (header is not None and header.below == base)
