"""Who else writes to the files of a disk. A file that somebody writes to is not a point in time, whatever the domain's state says."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from service import bounded_io
from service.disks import image_lock
from service.errors import DomainGone, LibvirtUnavailable, StillpointError
from service.hypervisor.guest import Guest
from service.hypervisor.qemu_process import is_open_for_writing
from service.model.inventory import DomainState

PROC, BLOCK_DEVICES = Path("/proc"), Path("/sys/block")

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
            for identity, is_written in _open_files(process, inodes):
                if is_written and identity in identities and not _is_qemu_of(guest, process):
                    return identities[identity], _name_of(process)
    return None


def _open_files(process: Path, inodes: set[int]) -> Iterator[tuple[Identity, bool]]:
    """Files that may be those of `inodes`, and block devices, and whether they are open for writing."""
    folder = process / "fd"
    for number in os.listdir(folder):  # noqa: PTH208 - for the same reason as below
        with suppress(OSError):
            name = os.readlink(f"{folder}/{number}")  # noqa: PTH115 - a Path for each open file of the host costs more than the call
            if not name.startswith("/"):
                continue
            text = (process / "fdinfo" / number).read_text()
            said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            # Only a file that may be ours is looked at: one on a mount that hangs would hold us up.
            if name.startswith("/dev/") or int(said.get("ino", -1)) in inodes or "ino" not in said:
                yield _identity((folder / number).stat()), is_open_for_writing(text)


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
    try:
        is_written = image_lock.read(path).is_written
    except image_lock.HeldByHost:
        return "a mount or another device of the host"
    return "another process, perhaps on another host: it holds QEMU's lock for writing" if is_written else None


# --- of a file that is to be removed ----------------------------------------------------------------


def why_not_unused(path: str, found: os.stat_result) -> str | None:
    """Who may have the file open: a program that writes to it, or a QEMU. None: nobody. `found`: which file it is."""
    identity, is_all_seen = _identity(found), True
    for process in PROC.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            for other, is_written in _open_files(process, {found.st_ino}):
                if other == identity and (is_written or _is_qemu(process)):
                    return f"{_name_of(process)} has it open"
        except PermissionError:
            is_all_seen = False
        except OSError:
            # The process has ended.
            continue
    try:
        return "a program that is not seen from here holds QEMU's lock of it" if image_lock.read(path).is_open else None
    except OSError as error:
        return None if is_all_seen else f"whether a program has it open cannot be seen: {bounded_io.reason_of(error)}"


def _is_qemu(process: Path) -> bool:
    return b"-uuid" in (process / "cmdline").read_bytes().split(b"\0")
