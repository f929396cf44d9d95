"""The superblock of ext2, ext3 and ext4."""

import struct
from collections.abc import Callable

from service.repository.crc32c import crc32c

_AT, _BYTES = 1024, 1024
_MAGIC = 0xEF53
_VALID, _ERROR = 1, 2
_HAS_JOURNAL, _NEEDS_RECOVERY, _JOURNAL_DEVICE = 0x4, 0x4, 0x8
#: Features that came with ext4: extents, 64 bits, flexible groups; huge files, checksums of groups or of all metadata.
_EXT4_INCOMPATIBLE, _EXT4_READ_ONLY = 0x40 | 0x80 | 0x200, 0x8 | 0x10 | 0x400
_METADATA_CHECKSUMS = 0x400


def judge(read: Callable[[int, int], bytes]) -> tuple[str, str, str] | None:
    """Type, state, detail. None: something else is there."""
    block = read(_AT, _BYTES)
    if len(block) < _BYTES or struct.unpack_from("<H", block, 56)[0] != _MAGIC:
        return None
    state = struct.unpack_from("<H", block, 58)[0]
    compatible, incompatible, read_only = struct.unpack_from("<III", block, 92)
    name = _name(compatible, incompatible, read_only)
    if incompatible & _JOURNAL_DEVICE:
        return "jbd", "unknown", "the journal of a filesystem on another device"
    if read_only & _METADATA_CHECKSUMS and crc32c(block[:1020]) != struct.unpack_from("<I", block, 1020)[0]:
        return name, "errors", "the checksum of its superblock is wrong"
    errors = struct.unpack_from("<I", block, 404)[0]
    if state & _ERROR or errors:
        return name, "errors", f"it has recorded {errors} errors" if errors else "it is marked as having errors"
    if incompatible & _NEEDS_RECOVERY:
        return name, "needs_recovery", "its journal is replayed at the next mount"
    if not state & _VALID:
        # A filesystem with a journal keeps the mark of a clean unmount while it is mounted.
        return name, "needs_recovery", "it was not unmounted"
    return name, "clean", ""


def _name(compatible: int, incompatible: int, read_only: int) -> str:
    if incompatible & _EXT4_INCOMPATIBLE or read_only & _EXT4_READ_ONLY:
        return "ext4"
    return "ext3" if compatible & _HAS_JOURNAL else "ext2"
