"""Writes blocks into an image that QEMU has compressed, to the same bytes as before.

QEMU compresses the blocks once more, into an image of its own, and the compressed bytes are put where the tables of the damaged image say
that they were. Another version of the compressor may come to other bytes: the checksum of the file tells that.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import RepositoryRefused
from service.model.image_header import READ_BYTES, parse
from service.repository import images
from service.repository.extents import CLUSTER_BYTES
from service.repository.images import ALONE, Image
from service.repository.nbd_server import NbdServer
from service.repository.qcow2_file import ENTRIES, from_big_endian
from service.repository.report import Report

_OFFSET = 0x00FFFFFFFFFFFE00
"""The bits of an entry that say where a cluster lies."""
_IS_COMPRESSED = 1 << 62
_COMPRESSED_OFFSET = (1 << 54) - 1
"""The same where the cluster is compressed, for clusters of 64 KiB. Such a cluster begins at any byte."""


@dataclass(frozen=True)
class _Place:
    """Where a cluster lies in the file. `is_compressed`: in how many bytes is not known."""

    offset: int
    is_compressed: bool


class CompressedWriter:
    """Takes blocks for an image. `path`: where an image may be made on the way."""

    def __init__(self, descriptor: int, path: Path, report: Report) -> None:
        self._descriptor, self._path, self._report = descriptor, path, report
        self._tables = _Tables(descriptor)

    def write(self, content: memoryview, start: int) -> None:
        """Raises OSError, ServerFailed, RepositoryRefused."""
        clusters = range(start // CLUSTER_BYTES, -(-(start + len(content)) // CLUSTER_BYTES))
        wanted = [(cluster, place) for cluster in clusters if (place := self._tables.place_of(cluster)) is not None]
        pieces = [content[cluster * CLUSTER_BYTES - start :][:CLUSTER_BYTES] for cluster, _ in wanted]
        with _again(self._path, pieces, self._report) as made:
            for (_, place), piece, compressed in zip(wanted, pieces, made, strict=True):
                # What could not be made smaller is stored as it is, then and now.
                stored = compressed if place.is_compressed else bytes(piece)
                if stored is not None:
                    _write(self._descriptor, stored, place.offset)


class _Tables:
    """The tables of an image as they stand in its file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        header = parse(os.pread(descriptor, READ_BYTES, 0))
        self._l1 = _entries(descriptor, header.l1_at, header.l1_entries) if header is not None else array("Q")
        self._l2: dict[int, array[int]] = {}

    def place_of(self, cluster: int) -> _Place | None:
        """None: the file does not hold the cluster."""
        number, index = divmod(cluster, ENTRIES)
        if number >= len(self._l1) or not (at := self._l1[number] & _OFFSET):
            return None
        if number not in self._l2:
            self._l2[number] = _entries(self._descriptor, at, ENTRIES)
        entry = self._l2[number][index]
        if entry & _IS_COMPRESSED:
            return _Place(entry & _COMPRESSED_OFFSET, is_compressed=True)
        return _Place(entry & _OFFSET, is_compressed=False) if entry & _OFFSET else None


@contextmanager
def _again(path: Path, pieces: Sequence[memoryview], report: Report) -> Iterator[list[bytes | None]]:
    """Each piece as QEMU compresses it. None: it does not become smaller."""
    with suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            images.create(path, max(len(pieces), 1) * CLUSTER_BYTES, is_compressed=True)
        except images.QemuImgFailed as failed:
            raise RepositoryRefused(path=str(path), what="making", reason=failed.reason) from failed
        ends = list(_written(path, descriptor, pieces, report))
        tables = _Tables(descriptor)
        yield [_compressed(descriptor, tables.place_of(n), end) for n, end in enumerate(ends)]
    finally:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()


def _written(path: Path, descriptor: int, pieces: Sequence[memoryview], report: Report) -> Iterator[int]:
    """Write one cluster after the other. After each, where the file ends: there its compressed bytes end."""
    image = Image(str(path), "qcow2", backing=ALONE, is_compressing=True)
    with NbdServer(image, connections=1, report=report, is_writable=True) as server:
        handle: Any = server.connect()[0]
        for n, piece in enumerate(pieces):
            handle.pwrite(bytes(piece).ljust(CLUSTER_BYTES, b"\0"), n * CLUSTER_BYTES)
            yield os.fstat(descriptor).st_size
            report.alive()
        handle.flush()


def _compressed(descriptor: int, place: _Place | None, end: int) -> bytes | None:
    if place is None or not place.is_compressed:
        return None
    return os.pread(descriptor, end - place.offset, place.offset)


def _entries(descriptor: int, offset: int, count: int) -> "array[int]":
    content = os.pread(descriptor, 8 * count, offset)
    return from_big_endian(content.ljust(8 * count, b"\0"))


def _write(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
