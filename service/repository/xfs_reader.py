"""The superblock of XFS, and its log: clean when the last record is that of an unmount."""

import struct
from collections.abc import Callable

from service.repository.crc32c import crc32c

_WITH_CHECKSUMS = 5
_CRC_AT = 224
_NEEDS_REPAIR = 0x10
_SECTOR = 512
"""Bytes of the blocks in which the log counts, whatever the disk has."""
_RECORD = 0xFEEDBABE
_UNMOUNT = 0x20
_SPAN_SECTORS = 4096
"""Sectors before the head of the log in which its last record begins: 2 MiB, eight times the largest record."""

Read = Callable[[int, int], bytes]


def judge(read: Read) -> tuple[str, str, str] | None:
    """Type, state, detail. None: something else is there."""
    block = read(0, 512)
    if not block.startswith(b"XFSB") or len(block) < 512:
        return None
    version, sector_bytes = struct.unpack_from(">HH", block, 100)
    if version & 0xF == _WITH_CHECKSUMS:
        whole = read(0, sector_bytes)
        stored = struct.unpack_from("<I", whole, _CRC_AT)[0]
        if crc32c(whole[:_CRC_AT] + bytes(4) + whole[_CRC_AT + 4 :]) ^ 0xFFFFFFFF != stored:
            return "xfs", "errors", "the checksum of its superblock is wrong"
        if struct.unpack_from(">I", block, 216)[0] & _NEEDS_REPAIR:
            return "xfs", "errors", "it asks for xfs_repair"
    if block[126]:
        return "xfs", "errors", "mkfs did not end, or a growth"
    log_start = struct.unpack_from(">Q", block, 48)[0]
    if log_start == 0:
        return "xfs", "unknown", "its log is on another device"
    return "xfs", *_of_log(_Log(read, block, log_start))


class _Log:
    """The log as a ring of sectors. Each sector carries the number of the turn in which it was written."""

    def __init__(self, read: Read, block: bytes, start: int) -> None:
        block_bytes, blocks_log = struct.unpack_from(">I", block, 4)[0], block[124]
        group_blocks = struct.unpack_from(">I", block, 84)[0]
        at = (start >> blocks_log) * group_blocks + (start & ((1 << blocks_log) - 1))
        self._read, self._at = read, at * block_bytes
        self.sectors = int(struct.unpack_from(">I", block, 96)[0] * block_bytes // _SECTOR)

    def sector(self, number: int) -> bytes:
        return self._read(self._at + number % self.sectors * _SECTOR, _SECTOR)

    def turn(self, number: int) -> int:
        first, second = struct.unpack_from(">II", self.sector(number))
        return int(second if first == _RECORD else first)

    def before(self, head: int, count: int) -> list[bytes]:
        """The sectors before the head, in order."""
        start = head - count
        if start >= 0:
            return self._sectors(start, count)
        return self._sectors(self.sectors + start, -start) + self._sectors(0, head)

    def _sectors(self, start: int, count: int) -> list[bytes]:
        content = self._read(self._at + start * _SECTOR, count * _SECTOR)
        return [content[position : position + _SECTOR] for position in range(0, len(content), _SECTOR)]


def _of_log(log: _Log) -> tuple[str, str]:
    if log.sectors == 0:
        return "unknown", "its log has no size"
    head = _head(log)
    if head is None:
        return "clean", "its log was never written"
    sectors = log.before(head, min(_SPAN_SECTORS, log.sectors))
    for position in range(len(sectors) - 1, -1, -1):
        if struct.unpack_from(">I", sectors[position])[0] == _RECORD:
            return _of_last_record(sectors[position:])
    return "unknown", "its log has no record before its head"


def _head(log: _Log) -> int | None:
    """The sector that is written next. None: the log holds zeroes only.

    The turn falls by one exactly once on the way round, as in `xlog_find_head` of Linux.
    """
    first, last = log.turn(0), log.turn(log.sectors - 1)
    if first == 0:
        return None
    if first == last:
        return 0
    low, high = 0, log.sectors - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if log.turn(middle) == first else (low, middle)
    return high


def _of_last_record(sectors: list[bytes]) -> tuple[str, str]:
    header = sectors[0]
    version, length = struct.unpack_from(">II", header, 8)
    operations, record_bytes = struct.unpack_from(">I", header, 40)[0], struct.unpack_from(">I", header, 320)[0]
    header_sectors = max(1, -(-record_bytes // 32768)) if version & 2 else 1
    ends_at_head = header_sectors + -(-length // _SECTOR) == len(sectors)
    if ends_at_head and operations == 1 and sectors[header_sectors][9] & _UNMOUNT:
        return "clean", ""
    return "needs_recovery", "its log is replayed at the next mount"
