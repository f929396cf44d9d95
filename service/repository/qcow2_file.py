"""Writes a qcow2 from its first byte to its last. Which clusters it has is known before the content of any is read.

So nothing in it is ever moved or written twice, the clusters lie in the guest's order, and the checksum of the stored bytes is computed
on the way. Images that are compressed or encrypted are written by QEMU (`writing.ServedTarget`). The format:
docs/interop/qcow2.txt of QEMU. `qemu-img check` finds nothing in these files; a test looks.
"""

import hashlib
import os
import struct
import sys
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.repository import durable
from service.repository.extents import CLUSTER_BYTES, Block, Extent, runs
from service.repository.report import Report
from service.repository.writing import Explained

_MAGIC, _VERSION, _CLUSTER_BITS = b"QFI\xfb", 3, 16
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_REFCOUNT_ORDER = 4
"""Counts of 16 bits."""
_BACKING_FORMAT = 0xE2792ACA
ENTRIES = CLUSTER_BYTES // 8
"""Entries of one table: an L2 table covers 512 MiB of the disk."""
COUNTS = CLUSTER_BYTES // 2
OWN_COPY = 1 << 63
"""The flag of a cluster that nothing else refers to."""
READS_AS_ZEROES = 1
MAX_NAME_BYTES = 1023
"""Bytes of the name of the image below, by the format. A longer name is refused before anything is made."""
_WRITE_BACK_BYTES = 16 << 20
"""The kernel begins to write back after so many bytes. Otherwise all of it would wait for the sync at the end."""


class Layout:
    """Where everything lies: header, table of refcounts, refcounts, L1 table, L2 tables, data.

    `data` and `zeroes`: in whole clusters, without overlap. `zeroes` hide what the image below holds.
    """

    def __init__(self, virtual_size: int, data: list[Extent], zeroes: list[Extent], backing_name: str | None) -> None:
        self.virtual_size, self.data, self.zeroes, self._backing_name = virtual_size, data, zeroes, backing_name
        counts = [-(-(end - start) // CLUSTER_BYTES) for start, end in data]
        self._tables = self._numbers_of_tables()
        self._l1_entries = max(1, -(-virtual_size // (ENTRIES * CLUSTER_BYTES)))
        l1_clusters = -(-self._l1_entries // ENTRIES)
        others = 1 + l1_clusters + len(self._tables) + sum(counts)
        self._count_blocks, self._count_tables = _refcount_clusters(others)
        self._clusters = others + self._count_blocks + self._count_tables
        self._l1_at = (1 + self._count_tables + self._count_blocks) * CLUSTER_BYTES
        self._l2_at = self._l1_at + l1_clusters * CLUSTER_BYTES
        self.data_at = self._l2_at + len(self._tables) * CLUSTER_BYTES
        self._starts = array("Q", [start for start, _ in data])
        self._offsets = array("Q")
        offset = self.data_at
        for count in counts:
            self._offsets.append(offset)
            offset += count * CLUSTER_BYTES
        self.file_bytes = offset

    def offset_of(self, start: int) -> int:
        """Where in the file a byte of `data` is."""
        index = bisect_right(self._starts, start) - 1
        return self._offsets[index] + start - self._starts[index]

    def metadata(self) -> Iterator[bytes]:
        """The file from its beginning to `data_at`."""
        yield self._header().ljust(CLUSTER_BYTES, b"\0")
        yield _table([CLUSTER_BYTES * (1 + self._count_tables + block) for block in range(self._count_blocks)], self._count_tables)
        for block in range(self._count_blocks):
            used = min(COUNTS, self._clusters - block * COUNTS)
            yield (b"\0\1" * used).ljust(CLUSTER_BYTES, b"\0")
        entries = [0] * self._l1_entries
        for position, number in enumerate(self._tables):
            entries[number] = self._l2_at + position * CLUSTER_BYTES | OWN_COPY
        yield _table(entries, (self._l2_at - self._l1_at) // CLUSTER_BYTES)
        yield from self._l2_tables()

    def _header(self) -> bytes:
        name = os.fsencode(self._backing_name) if self._backing_name is not None else b""
        extensions = struct.pack(">II8s", _BACKING_FORMAT, 5, b"qcow2") if name else b""
        extensions += struct.pack(">II", 0, 0)
        name_at = _HEADER.size + len(extensions) if name else 0
        plain = (_MAGIC, _VERSION, name_at, len(name), _CLUSTER_BITS, self.virtual_size, 0, self._l1_entries, self._l1_at)
        counts = (CLUSTER_BYTES, self._count_tables)
        return _HEADER.pack(*plain, *counts, 0, 0, 0, 0, 0, _REFCOUNT_ORDER, _HEADER.size) + extensions + name

    def _numbers_of_tables(self) -> list[int]:
        covered = ENTRIES * CLUSTER_BYTES
        return sorted({number for start, end in (*self.data, *self.zeroes) for number in range(start // covered, -(-end // covered))})

    def _l2_tables(self) -> Iterator[bytes]:
        table, data, zeroes = array("Q", bytes(CLUSTER_BYTES)), _Cursor(self.data), _Cursor(self.zeroes)
        for number in self._tables:
            first = number * ENTRIES
            table[:] = array("Q", bytes(CLUSTER_BYTES))
            for start, end in data.within(first, first + ENTRIES):
                at = self.offset_of(start * CLUSTER_BYTES) | OWN_COPY
                table[start - first : end - first] = array("Q", range(at, at + (end - start) * CLUSTER_BYTES, CLUSTER_BYTES))
            for start, end in zeroes.within(first, first + ENTRIES):
                table[start - first : end - first] = array("Q", [READS_AS_ZEROES]) * (end - start)
            yield _big_endian(table)


class _Cursor:
    """Goes once through extents, counted in clusters."""

    def __init__(self, extents: list[Extent]) -> None:
        self._extents, self._position = extents, 0

    def within(self, first: int, end: int) -> Iterator[Extent]:
        while self._position < len(self._extents):
            start, stop = self._extents[self._position]
            from_cluster, to_cluster = start // CLUSTER_BYTES, -(-stop // CLUSTER_BYTES)
            if from_cluster >= end:
                return
            if to_cluster > first:
                yield max(from_cluster, first), min(to_cluster, end)
            if to_cluster > end:
                return
            self._position += 1


def _refcount_clusters(others: int) -> tuple[int, int]:
    """The clusters of refcounts and of their table, which count themselves as well."""
    blocks = tables = 0
    while (total := others + blocks + tables) > blocks * COUNTS or blocks > tables * ENTRIES:
        blocks = -(-total // COUNTS)
        tables = -(-blocks // ENTRIES)
    return blocks, tables


def _table(entries: list[int], clusters: int) -> bytes:
    return _big_endian(array("Q", entries)).ljust(clusters * CLUSTER_BYTES, b"\0")


def _big_endian(values: "array[int]") -> bytes:
    if sys.byteorder == "big":
        return values.tobytes()
    swapped = array("Q", values)
    swapped.byteswap()
    return swapped.tobytes()


def from_big_endian(content: bytes) -> "array[int]":
    """Numbers of 8 bytes."""
    values = array("Q", content)
    if sys.byteorder == "little":
        values.byteswap()
    return values


class Qcow2File:
    """The target of a copy. Blocks come from several threads, each when it is read; the checksum takes them in their order."""

    def __init__(self, descriptor: int, path: Path, layout: Layout, explained: Explained, *, is_hashed: bool = True) -> None:
        self._descriptor, self._path, self._layout, self._explained = descriptor, path, layout, explained
        self._sha256 = hashlib.sha256() if is_hashed else None
        self._order = threading.Condition()
        self._next, self._is_given_up, self._not_written_back = 0, False, 0
        with self._errors():
            os.ftruncate(descriptor, layout.file_bytes)
            position = 0
            for part in layout.metadata():
                self._hash(part)
                self._write(memoryview(part), position)
                position += len(part)

    def put(self, index: int, block: Block, content: bytearray) -> int:
        """Returns the bytes that were written. Zeroes become holes in the file."""
        del index
        view, written = memoryview(content), 0
        with self._errors():
            for start, end, is_zero in runs(content, block):
                if not is_zero:
                    self._write(view[start - block.start : end - block.start], self._layout.offset_of(start))
                    written += end - start
        if self._sha256 is not None:
            self._hash_in_turn(block, view)
        return written

    def finish(self, report: Report) -> str | None:
        with self._errors():
            durable.sync(self._descriptor, report)
        return self._sha256.hexdigest() if self._sha256 is not None else None

    def give_up(self) -> None:
        """Another thread met an error: no thread waits for its turn any more."""
        with self._order:
            self._is_given_up = True
            self._order.notify_all()

    def _hash_in_turn(self, block: Block, view: memoryview) -> None:
        with self._order:
            while self._next != block.order and not self._is_given_up:
                self._order.wait()
        for start, end in block.pieces:
            self._hash(view[start - block.start : end - block.start])
            if rest := -end % CLUSTER_BYTES if end == self._layout.virtual_size else 0:
                self._hash(bytes(rest))
        with self._order:
            self._next += 1
            self._order.notify_all()

    def _hash(self, part: bytes | memoryview) -> None:
        if self._sha256 is not None:
            self._sha256.update(part)

    def _write(self, content: memoryview, offset: int) -> None:
        count = len(content)
        while content:
            written = os.pwrite(self._descriptor, content, offset)
            content, offset = content[written:], offset + written
        self._not_written_back += count
        if self._not_written_back > _WRITE_BACK_BYTES:
            self._not_written_back = 0
            durable.begin_writing_back(self._descriptor)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explained(error, self._path, "writing") from error
