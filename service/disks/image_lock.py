"""The locks that QEMU, qemu-nbd and qemu-img hold on the images that they have open.

The locks show programs that /proc does not show: programs of another user, of another container, of another host.
"""

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

_READS, _WRITES = 100, 101
"""Offsets of bytes. QEMU locks byte 100 of every image that it has open, and byte 101 of every image that it may write to."""
_FLOCK = struct.Struct("hhqqi4x")


@dataclass(frozen=True)
class ImageLock:
    """A program without a lock may still have the file open: locks can be turned off, and only programs of QEMU take these locks."""

    is_open: bool
    is_written: bool


class HeldByHost(Exception):
    """The block device is mounted, or another device of the host uses it."""


def read(path: str) -> ImageLock:
    """Raises OSError if the file cannot be opened or its locks cannot be read, and HeldByHost."""
    is_device = stat.S_ISBLK(Path(path).stat().st_mode)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_EXCL if is_device else 0))
    except OSError as error:
        if is_device and error.errno == errno.EBUSY:
            raise HeldByHost from error
        raise
    try:
        is_written = _is_locked(descriptor, _WRITES)
        return ImageLock(is_written or _is_locked(descriptor, _READS), is_written)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, byte: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    return bool(_FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)
