"""Who else writes to the files of a disk. A file that somebody writes to is not a point in time, whatever the domain's state says."""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from service import bounded_io
from service.errors import DomainGone, LibvirtUnavailable, StillpointError
from service.hypervisor.guest import Guest
from service.model.inventory import DomainState

PROC, BLOCK_DEVICES = Path("/proc"), Path("/sys/block")
_WRITES = os.O_WRONLY | os.O_RDWR
_QEMU_WRITE_LOCK = 101
"""The byte that QEMU, qemu-nbd and qemu-img hold a lock on while they may write to an image."""
_FLOCK = struct.Struct("hhqqi4x")

Identity = tuple[int, int]


def writer_of(guest: Guest, files: Sequence[str], guests: Callable[[], Sequence[Guest]]) -> tuple[str, str] | None:
    """File and who writes to it, in words; None: nobody but this guest's own QEMU is seen to.

    `files`: those of the disks, and below them. `guests`: of the whole host. Raises LibvirtUnavailable, StorageNotAnswering.
    """
    is_off = guest.is_shut_off()
    identities = {identity: path for path in files if (identity := _identity_of(path)) is not None}
    for found in (
        _domain_that_writes(guest, identities, guests),
        _process_that_writes(guest, identities),
        _device_on_top(identities),
        _holder_unseen(identities.values()) if is_off else None,
    ):
        if found is not None:
            return found
    return None


def _identity_of(path: str) -> Identity | None:
    try:
        return _identity(bounded_io.answered("looking at", path, Path(path).stat))
    except OSError:
        # Who makes the overlay says that it is not there.
        return None


def _identity(found: os.stat_result) -> Identity:
    """A block device is one under all its names."""
    return (-1, found.st_rdev) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)


def _domain_that_writes(guest: Guest, identities: dict[Identity, str], guests: Callable[[], Sequence[Guest]]) -> tuple[str, str] | None:
    for other in guests():
        if other.uuid == guest.uuid:
            continue
        for source in _written_by(other):
            identity = _identity_of(source)
            if identity in identities:
                return identities[identity], f"the running domain {other.name}"
    return None


def _written_by(other: Guest) -> list[str]:
    try:
        if other.state() is DomainState.shut_off:
            return []
        return [disk.source for disk in other.disks() if disk.source and disk.source.startswith("/") and not disk.read_only]
    except LibvirtUnavailable:
        raise
    except DomainGone:
        return []
    except StillpointError:
        # A domain that hangs must not stop the others' points: its QEMU is seen as a process, and its locks.
        return []


def _process_that_writes(guest: Guest, identities: dict[Identity, str]) -> tuple[str, str] | None:
    inodes = {inode for device, inode in identities if device != -1}
    for process in PROC.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):
            for identity in _open_for_writing(process, inodes):
                if identity in identities and not _is_qemu_of(guest, process):
                    return identities[identity], _name_of(process)
    return None


def _open_for_writing(process: Path, inodes: set[int]) -> Iterator[Identity]:
    """Files that may be those of `inodes`, and block devices."""
    folder = process / "fd"
    for number in os.listdir(folder):  # noqa: PTH208 - for the same reason as below
        with suppress(OSError):
            name = os.readlink(f"{folder}/{number}")  # noqa: PTH115 - a Path for each open file of the host costs more than the call
            if not name.startswith("/"):
                continue
            said = dict(line.split(":", 1) for line in (process / "fdinfo" / number).read_text().splitlines() if ":" in line)
            if not int(said["flags"], 8) & _WRITES:
                continue
            # Only a file that may be ours is looked at: one on a mount that hangs would hold us up.
            if name.startswith("/dev/") or int(said.get("ino", -1)) in inodes or "ino" not in said:
                yield _identity((folder / number).stat())


def _is_qemu_of(guest: Guest, process: Path) -> bool:
    return guest.uuid.encode() in (process / "cmdline").read_bytes().split(b"\0")


def _name_of(process: Path) -> str:
    name = (process / "comm").read_text().strip()
    return f"process {process.name} ({name})"


def _device_on_top(identities: dict[Identity, str]) -> tuple[str, str] | None:
    """A loop device holds its file open without a process."""
    for device in BLOCK_DEVICES.glob("loop*"):
        with suppress(OSError):
            backing = (device / "loop" / "backing_file").read_text().rstrip("\n")
            identity = _identity_of(backing)
            if identity in identities and (device / "ro").read_text().strip() == "0":
                return identities[identity], f"the loop device /dev/{device.name}"
    return None


def _holder_unseen(files: Iterable[str]) -> tuple[str, str] | None:
    """By its lock: of another host, another container, or of a user whose processes cannot be looked into."""
    for path in files:
        with suppress(OSError):
            holder = bounded_io.answered("asking for locks of", path, partial(_holder_of_lock, path))
            if holder is not None:
                return path, holder
    return None


def _holder_of_lock(path: str) -> str | None:
    is_device = stat.S_ISBLK(Path(path).stat().st_mode)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_EXCL if is_device else 0))
    except OSError as error:
        return "a mount or another device of the host" if is_device and error.errno == errno.EBUSY else None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _QEMU_WRITE_LOCK, 1, 0)
        kind = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else "another process, perhaps on another host: it holds QEMU's lock for writing"
