"""What the filesystems of a disk say of themselves, read without mounting them: partitions, and the state of each filesystem.

States: `clean`; `needs_recovery`: a journal is replayed at the next mount, which is what a point of a running guest shows;
`errors`: the filesystem asks for a repair; `unknown`. Pure functions over `read(offset, length)`, which returns less at the end.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from service.repository import ext_reader, ntfs_reader, xfs_reader
from service.repository.partitions import Partition, partitions

Read = Callable[[int, int], bytes]
#: Offset, signature, type. What is found here is known by its name only.
_SIGNATURES = (
    (0, b"LUKS\xba\xbe", "luks"),
    (0x218, b"LVM2 001", "lvm2"),
    (4086, b"SWAPSPACE2", "swap"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (3, b"-FVE-FS-", "bitlocker"),
    (3, b"ReFS\0\0\0\0", "refs"),
    (3, b"EXFAT   ", "exfat"),
    (82, b"FAT32   ", "vfat"),
    (54, b"FAT16   ", "vfat"),
    (54, b"FAT12   ", "vfat"),
    (32769, b"CD001", "iso9660"),
)
_READ_BYTES = 0x11000
"""Bytes at the beginning of a filesystem that hold all signatures."""


@dataclass(frozen=True)
class FilesystemState:
    """`partition`: its number. None: the filesystem fills the disk."""

    partition: int | None
    type: str
    state: str
    detail: str


def filesystems(read: Read, size: int) -> list[dict[str, Any]]:
    """Each filesystem and each other thing that is known by its signature."""
    whole = state_of(read, Partition(None, 0, size))
    if whole is not None and whole.state != "unknown":
        return [asdict(whole)]
    states = [state_of(read, partition) for partition in partitions(read, size)]
    known = [state for state in states if state is not None]
    return [asdict(state) for state in known or ([whole] if whole is not None else [])]


def state_of(read: Read, partition: Partition) -> FilesystemState | None:
    """None: nothing there is known."""

    def inside(offset: int, length: int) -> bytes:
        return read(partition.start + offset, max(0, min(length, partition.length - offset)))

    try:
        for name, state, detail in _judged(inside):
            return FilesystemState(partition.number, name, state, detail)
    except (struct.error, IndexError) as error:
        return FilesystemState(partition.number, "unknown", "unknown", f"its beginning cannot be understood: {error}")
    return None


def _judged(inside: Read) -> Iterator[tuple[str, str, str]]:
    for reader in (ext_reader.judge, xfs_reader.judge, ntfs_reader.judge):
        judged = reader(inside)
        if judged is not None:
            yield judged
    head = inside(0, _READ_BYTES)
    for offset, signature, name in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            yield name, "unknown", "known by its signature only"
