"""Reads the header of a qcow2. `qemu-img info` is not used, because it takes 20 ms for each file, and may wait for a lock."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"QFI\xfb"
READ_BYTES = 65536
"""QEMU writes the header, its extensions and the name of the file below at the beginning of the first cluster."""

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_V2_BYTES, _V3_BYTES = _FIXED.size, _FIXED.size + _FEATURES.size
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT, _BITMAPS = 0xE2792ACA, 0x23852875
_CORRUPT, _DATA_FILE = 1 << 1, 1 << 2
_ENCRYPTION = {1: "AES", 2: "LUKS"}


@dataclass(frozen=True)
class ImageHeader:
    """`below` and `below_format`: the file below, as the header names it. None: there is no file below, or the header does not say."""

    below: str | None = None
    below_format: str | None = None
    encryption: str | None = None
    has_data_file: bool = False
    is_corrupt: bool = False
    internal_snapshots: int = 0
    has_bitmaps: bool = False
    #: Bytes that the guest sees.
    virtual_size: int = 0
    #: Bytes from the beginning of the file to its table of tables, and the number of entries of 8 bytes there.
    l1_at: int = 0
    l1_entries: int = 0


def parse(head: bytes) -> ImageHeader | None:
    """`head`: the first READ_BYTES of a file, or fewer if the file is shorter. None: the file is not a qcow2."""
    if len(head) < _V2_BYTES or not head.startswith(MAGIC):
        return None
    _, version, name_at, name_bytes, _, virtual_size, crypt, l1_entries, l1_at, _, _, snapshots, _ = _FIXED.unpack_from(head)
    features, extensions_at = 0, _V2_BYTES
    if version >= 3 and len(head) >= _V3_BYTES:
        features, _, _, _, extensions_at = _FEATURES.unpack_from(head, _FIXED.size)
    extensions = dict(_extensions(head, extensions_at))
    below_format = extensions.get(_BACKING_FORMAT)
    return ImageHeader(
        below=_text(head[name_at : name_at + name_bytes]) if name_at else None,
        below_format=_text(below_format) if below_format is not None else None,
        encryption=_ENCRYPTION.get(crypt, "an unknown cipher") if crypt else None,
        has_data_file=bool(features & _DATA_FILE),
        is_corrupt=bool(features & _CORRUPT),
        internal_snapshots=snapshots,
        has_bitmaps=_BITMAPS in extensions,
        virtual_size=virtual_size,
        l1_at=l1_at,
        l1_entries=l1_entries,
    )


def _extensions(head: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    at = start
    while at + _EXTENSION.size <= len(head):
        kind, length = _EXTENSION.unpack_from(head, at)
        if kind == 0:
            return
        at += _EXTENSION.size
        yield kind, head[at : at + length]
        at += (length + 7) & ~7


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
