"""NTFS: the mark in $Volume that asks for chkdsk, and whether $LogFile was closed."""

import struct
from collections.abc import Callable, Iterator

_LOG_FILE, _VOLUME = 2, 3
_DATA, _VOLUME_INFORMATION = 0x80, 0x70
_IS_DIRTY = 1
_VOLUME_IS_CLEAN = 2
_NO_CLIENT = 0xFFFF
_PAGE_BYTES = 4096
"""Bytes of the pages at the beginning of the log. What lies behind the second one is not read."""

Read = Callable[[int, int], bytes]


def judge(read: Read) -> tuple[str, str, str] | None:
    """Type, state, detail. None: something else is there."""
    boot = read(0, 512)
    if boot[3:11] != b"NTFS    ":
        return None
    sector_bytes, per_cluster = struct.unpack_from("<HB", boot, 11)
    # 244 and above: a power of two, for clusters of more than 128 sectors.
    cluster_bytes = sector_bytes * (per_cluster if per_cluster <= 128 else 1 << (256 - per_cluster))
    table_at = struct.unpack_from("<Q", boot, 48)[0] * cluster_bytes
    record_size = struct.unpack_from("<b", boot, 64)[0]
    record_bytes = record_size * cluster_bytes if record_size > 0 else 1 << -record_size
    if not (cluster_bytes and 256 <= record_bytes <= 65536 and sector_bytes):
        return "ntfs", "errors", "its boot sector cannot be right"
    volume = _record(read(table_at + _VOLUME * record_bytes, record_bytes))
    log_file = _record(read(table_at + _LOG_FILE * record_bytes, record_bytes))
    if volume is None or log_file is None:
        return "ntfs", "errors", "its file table is damaged"
    return "ntfs", *_of_records(volume, log_file, read, cluster_bytes)


def _of_records(volume: bytes, log_file: bytes, read: Read, cluster_bytes: int) -> tuple[str, str]:
    for attribute in _attributes(volume, _VOLUME_INFORMATION):
        value_at = struct.unpack_from("<H", attribute, 20)[0]
        if struct.unpack_from("<H", attribute, value_at + 10)[0] & _IS_DIRTY:
            return "errors", "it is marked dirty: Windows runs chkdsk at the next start"
        break
    else:
        return "unknown", "it has no volume information"
    for attribute in _attributes(log_file, _DATA):
        first = _first_run(attribute)
        if first is not None:
            return _of_log(read(first * cluster_bytes, _PAGE_BYTES), read(first * cluster_bytes + _PAGE_BYTES, _PAGE_BYTES))
    return "unknown", "its log cannot be located"


def _record(raw: bytes) -> bytes | None:
    """A record of the file table with the last two bytes of each sector put back. None: damaged, or written in part."""
    if not raw.startswith(b"FILE"):
        return None
    return _put_back(raw)


def _put_back(raw: bytes) -> bytes | None:
    at, count = struct.unpack_from("<HH", raw, 4)
    record, mark = bytearray(raw), raw[at : at + 2]
    for number in range(1, count):
        end = number * 512
        if end > len(record) or record[end - 2 : end] != mark:
            return None
        record[end - 2 : end] = raw[at + 2 * number : at + 2 * number + 2]
    return bytes(record)


def _attributes(record: bytes, kind: int) -> Iterator[bytes]:
    at = struct.unpack_from("<H", record, 20)[0]
    while at + 8 <= len(record):
        its_kind, length = struct.unpack_from("<II", record, at)
        if its_kind == 0xFFFFFFFF or length < 16:
            return
        if its_kind == kind:
            yield record[at : at + length]
        at += length


def _first_run(attribute: bytes) -> int | None:
    """The cluster in which the content begins. None: it is in the record itself."""
    if not attribute[8]:
        return None
    at = struct.unpack_from("<H", attribute, 32)[0]
    length_bytes, offset_bytes = attribute[at] & 0xF, attribute[at] >> 4
    start = at + 1 + length_bytes
    return int.from_bytes(attribute[start : start + offset_bytes], "little", signed=True) if offset_bytes else None


def _of_log(*pages: bytes) -> tuple[str, str]:
    if all(page[:4] in (b"\xff\xff\xff\xff", b"CHKD") for page in pages):
        return "clean", "its log is empty"
    areas = [area for page in pages if (area := _restart_area(page)) is not None]
    if not areas:
        return "errors", "its log has no page to begin from"
    # Two pages are written in turn: the one with the higher number holds.
    area = max(areas, key=lambda one: int(struct.unpack_from("<Q", one)[0]))
    in_use, flags = struct.unpack_from("<HH", area, 12)
    if in_use == _NO_CLIENT or flags & _VOLUME_IS_CLEAN:
        return "clean", ""
    return "needs_recovery", "its log is replayed at the next mount"


def _restart_area(page: bytes) -> bytes | None:
    whole = _put_back(page) if page.startswith((b"RSTR", b"CHKD")) else None
    if whole is None:
        return None
    at = struct.unpack_from("<H", whole, 24)[0]
    return whole[at : at + 48] if at + 48 <= len(whole) else None
