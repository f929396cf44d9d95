"""Reads and syncs large files so that a slow storage is not taken for one that hangs: something is said after each piece."""

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable
from functools import cache

from service.repository.report import Report

PIECE_BYTES = 32 << 20
"""Bytes that are written back between two signs of life."""
READ_BYTES = 1 << 20
"""Bytes of one read."""
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
#: Not every filesystem can write back a part of a file. Then only the sync remains.
_UNABLE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ESPIPE, errno.ENOTSUP})


def sha256_of(descriptor: int, on_bytes: Callable[[int], None]) -> tuple[str, int]:
    """SHA-256 in hex of a file from its beginning, and its bytes. `on_bytes`: called for each piece with its length. Raises OSError."""
    digest, count = hashlib.sha256(), 0
    buffer = bytearray(READ_BYTES)
    view = memoryview(buffer)
    while length := os.preadv(descriptor, [buffer], count):
        digest.update(view[:length])
        count += length
        on_bytes(length)
    return digest.hexdigest(), count


def begin_writing_back(descriptor: int) -> None:
    """The kernel begins to write what it holds, so that the sync that follows finds little left. Raises OSError."""
    _write_back(descriptor, 0, 0, _WRITE)


def sync(descriptor: int, report: Report) -> None:
    """Raises OSError."""
    size = os.fstat(descriptor).st_size
    for offset in range(0, size, PIECE_BYTES):
        if not _write_back(descriptor, offset, PIECE_BYTES, _WAIT_BEFORE | _WRITE | _WAIT_AFTER):
            break
        report.alive()
    os.fsync(descriptor)
    report.alive()


def _write_back(descriptor: int, offset: int, count: int, flags: int) -> bool:
    """Whether the filesystem can do this. An error is raised, as the sync that follows would not meet it again."""
    if _sync_file_range()(descriptor, ctypes.c_int64(offset), ctypes.c_int64(count), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number))


@cache
def _sync_file_range() -> Callable[..., int]:
    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).sync_file_range
    return function
