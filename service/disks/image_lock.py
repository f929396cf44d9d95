"""The locks that QEMU, qemu-nbd and qemu-img hold on the images that they have open. They tell of programs that /proc does not show:
those of another user, of another container, of another host."""

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

_READS, _WRITES = 100, 101
"""Bytes: QEMU locks the first one of every image that it has open, and the second one of an image that it may write to."""
_FLOCK = struct.Struct("hhqqi4x")


@dataclass(frozen=True)
class ImageLock:
    """Who holds nothing here may still have the file open: locks can be turned off, and other programs than QEMU's take none."""

    is_open: bool
    is_written: bool


class HeldByHost(Exception):
    """A block device that is mounted, or below another device of the host."""


def read(path: str) -> ImageLock:
    """Raises OSError where the file cannot be opened or its locks cannot be asked for, and HeldByHost."""
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
