"""The partitions of a disk: GPT, or MBR with logical partitions. Pure functions over `read(offset, length)`."""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
SECTOR_BYTES = 512
"""Bytes of a sector of an MBR. A GPT may count in sectors of 4096 bytes."""
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
MAX_PARTITIONS = 256
"""Partitions that are looked at. The other ones are left out."""


@dataclass(frozen=True)
class Partition:
    """`start`, `length`: in bytes. `number`: as Linux counts. None: the whole disk."""

    number: int | None
    start: int
    length: int


def partitions(read: Read, size: int) -> list[Partition]:
    """The partitions that lie on the disk, in the order of their numbers."""
    first = read(0, SECTOR_BYTES)
    if first[510:512] != b"\x55\xaa":
        # A GPT has a second copy at the end, but no disk that a guest boots from has lost this sector.
        return []
    entries = list(_entries(first))
    is_protective = any(kind == _PROTECTIVE for _, kind, _, _ in entries)
    every = _gpt(read) if is_protective else _mbr(read, entries)
    return [one for one in list(every)[:MAX_PARTITIONS] if one.length > 0 and one.start + one.length <= size]


def _entries(sector: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Number, type, first sector, sectors."""
    for number in range(4):
        kind, start, sectors = struct.unpack_from("<4xB3xII", sector, 446 + 16 * number)
        if kind and sectors:
            yield number + 1, kind, start, sectors


def _mbr(read: Read, entries: list[tuple[int, int, int, int]]) -> Iterator[Partition]:
    for number, kind, start, sectors in entries:
        if kind not in _EXTENDED:
            yield Partition(number, start * SECTOR_BYTES, sectors * SECTOR_BYTES)
    for _, kind, start, _ in entries:
        if kind in _EXTENDED:
            yield from _logical(read, start)


def _logical(read: Read, extended: int) -> Iterator[Partition]:
    """A chain of tables, each with one partition and the place of the next table."""
    at, seen, number = extended, set[int](), 5
    while at not in seen and len(seen) < MAX_PARTITIONS:
        seen.add(at)
        sector = read(at * SECTOR_BYTES, SECTOR_BYTES)
        if sector[510:512] != b"\x55\xaa":
            return
        following = None
        for _, kind, start, sectors in _entries(sector):
            if kind in _EXTENDED:
                following = extended + start
            else:
                yield Partition(number, (at + start) * SECTOR_BYTES, sectors * SECTOR_BYTES)
                number += 1
        if following is None:
            return
        at = following


def _gpt(read: Read) -> Iterator[Partition]:
    for sector in (512, 4096):
        header = read(sector, 92)
        if len(header) == 92 and header.startswith(b"EFI PART") and _is_whole(header):
            break
    else:
        return
    entries_at, count, entry_bytes = struct.unpack_from("<Q I I", header, 72)
    if not 128 <= entry_bytes <= 4096:
        return
    table = read(entries_at * sector, min(count, MAX_PARTITIONS) * entry_bytes)
    for number in range(len(table) // entry_bytes):
        entry = table[number * entry_bytes :][:48]
        start, end = struct.unpack_from("<QQ", entry, 32)
        if entry[:16] != bytes(16):
            yield Partition(number + 1, start * sector, (end - start + 1) * sector)


def _is_whole(header: bytes) -> bool:
    """The checksum of the header covers 92 bytes, with zeroes in its own place."""
    return zlib.crc32(header[:16] + bytes(4) + header[20:]) == int(struct.unpack_from("<I", header, 16)[0])
