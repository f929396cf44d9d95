"""Finds other writers to the files of a disk. A file that a program writes to is not a point in time, in any state of the domain."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from service import bounded_io
from service.disks import image_lock
from service.errors import DomainGone, LibvirtUnavailable, StillpointError, StorageNotAnswering
from service.hypervisor.guest import Guest
from service.hypervisor.qemu_process import is_open_for_writing
from service.model.inventory import DomainState

PROC, BLOCK_DEVICES = Path("/proc"), Path("/sys/block")
LOOP_PATIENCE_S = 2.0
"""Seconds to look at the file below a loop device. After that its storage hangs, which that of the disks does not: it is another file."""

Identity = tuple[int, int]


def writer_of(guest: Guest, files: Sequence[str], guests: Callable[[], Sequence[Guest]]) -> tuple[str, str] | None:
    """The file and its writer, in words. None: only this guest's own QEMU is seen to write.

    `files`: the files of the disks and the files below. `guests`: all guests of the host. Raises LibvirtUnavailable, StorageNotAnswering.
    """
    is_off = guest.is_shut_off()
    identities = {identity: path for path in files if (identity := _identity_of(path)) is not None}
    for writer in (
        _domain_that_writes(guest, identities, guests),
        _process_that_writes(guest, identities),
        _device_on_top(identities),
        _holder_unseen(identities.values()) if is_off else None,
    ):
        if writer is not None:
            return writer
    return None


def _identity_of(path: str, limit_s: float | None = None) -> Identity | None:
    try:
        return _identity(bounded_io.call("looking at", path, Path(path).stat, limit_s))
    except OSError:
        # A missing file has no writer. Making the overlay reports that the file is missing.
        return None


def _identity(status: os.stat_result) -> Identity:
    """A block device has the same identity under all its names."""
    return (-1, status.st_rdev) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


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
        # A domain that hangs must not stop the points of other domains. Its QEMU process and its locks are seen anyway.
        return []


def _process_that_writes(guest: Guest, identities: dict[Identity, str]) -> tuple[str, str] | None:
    inodes = {inode for device, inode in identities if device != -1}
    for process in PROC.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):
            for identity, is_written in _open_files(process, inodes):
                if is_written and identity in identities and not _is_qemu_of(guest, process):
                    return identities[identity], _name_of(process)
    return None


def _open_files(process: Path, inodes: set[int]) -> Iterator[tuple[Identity, bool]]:
    """Open block devices and open files that may have one of `inodes`, each with whether it is open for writing."""
    folder = process / "fd"
    for number in os.listdir(folder):  # noqa: PTH208 - for the same reason as below
        with suppress(OSError):
            name = os.readlink(f"{folder}/{number}")  # noqa: PTH115 - a Path for each open file of the host costs more than the call
            if not name.startswith("/"):
                continue
            text = (process / "fdinfo" / number).read_text()
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            # Only a file that may be one of the disk's is looked at: a file on a mount that hangs would block the worker.
            if name.startswith("/dev/") or int(fields.get("ino", -1)) in inodes or "ino" not in fields:
                yield _identity((folder / number).stat()), is_open_for_writing(text)


def _is_qemu_of(guest: Guest, process: Path) -> bool:
    return guest.uuid.encode() in (process / "cmdline").read_bytes().split(b"\0")


def _name_of(process: Path) -> str:
    name = (process / "comm").read_text().strip()
    return f"process {process.name} ({name})"


def _device_on_top(identities: dict[Identity, str]) -> tuple[str, str] | None:
    """A loop device holds its file open without a process."""
    for device in BLOCK_DEVICES.glob("loop*"):
        with suppress(OSError, StorageNotAnswering):
            backing = (device / "loop" / "backing_file").read_text().rstrip("\n")
            identity = _identity_of(backing, LOOP_PATIENCE_S)
            if identity in identities and (device / "ro").read_text().strip() == "0":
                return identities[identity], f"the loop device /dev/{device.name}"
    return None


def _holder_unseen(files: Iterable[str]) -> tuple[str, str] | None:
    """A holder that only its lock shows: on another host, in another container, or a process that the worker may not look into."""
    for path in files:
        with suppress(OSError):
            holder = bounded_io.call("asking for locks of", path, partial(_holder_of_lock, path))
            if holder is not None:
                return path, holder
    return None


def _holder_of_lock(path: str) -> str | None:
    try:
        is_written = image_lock.read(path).is_written
    except image_lock.HeldByHost:
        return "a mount or another device of the host"
    return "another process, perhaps on another host: it holds QEMU's lock for writing" if is_written else None


# --- a file that is to be removed --------------------------------------------------------------------


def why_not_unused(path: str, status: os.stat_result) -> str | None:
    """The program that may have the file open, in words: a program that writes to the file, or a QEMU. None: no program.

    `status`: tells which file is meant, as another file may take its name.
    """
    identity, is_all_seen = _identity(status), True
    for process in PROC.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            for other, is_written in _open_files(process, {status.st_ino}):
                if other == identity and (is_written or _is_qemu(process)):
                    return f"{_name_of(process)} has it open"
        except PermissionError:
            is_all_seen = False
        except OSError:
            # The process has ended.
            continue
    try:
        return "a program that the worker cannot see holds QEMU's lock on the file" if image_lock.read(path).is_open else None
    except OSError as error:
        return None if is_all_seen else f"the worker cannot see whether a program has it open: {bounded_io.reason_of(error)}"


def _is_qemu(process: Path) -> bool:
    return b"-uuid" in (process / "cmdline").read_bytes().split(b"\0")
