"""Finds out how a damaged qcow2 was laid out, where `qcow2_file` wrote it: its header and tables are made again, and never mended.

Everything in such a file follows from its size, the size of the disk, the name of the image below, and which clusters it has. Only the
tables tell the last of these, and their entries are known in advance but for three choices: no cluster, zeroes, or the next cluster of the
file. So an entry that is none of them shows by its bits which of them it was. Whether that was right is told by the checksum of the file.
"""

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from service.repository.extents import CLUSTER_BYTES, Extent, append
from service.repository.qcow2_file import COUNTS, ENTRIES, OWN_COPY, READS_AS_ZEROES, Layout, from_big_endian
from service.repository.report import Report

_NOTHING = 0


@dataclass(frozen=True)
class Known:
    """What is known of the file without its tables. `stored_bytes`: as it was sealed."""

    stored_bytes: int
    virtual_size: int
    backing_name: str | None


class _Tables(NamedTuple):
    l1_at: int
    l2_at: int
    l1_entries: int


def layouts(descriptor: int, known: Known, report: Report) -> Iterator[Layout]:
    """The layouts that the file may have had: none, one, or two. Raises OSError."""
    tables = _tables(known)
    if tables is None:
        return
    seen: list[tuple[list[Extent], list[Extent]]] = []
    # Where an entry is as near to both, it is taken for a cluster first, and then for nothing.
    for prefers_cluster in (True, False):
        numbers = _numbers(descriptor, tables, prefers_cluster=prefers_cluster)
        reading = _Reading(descriptor, known, tables, numbers, prefers_cluster=prefers_cluster)
        areas = reading.extents(report)
        if reading.ends_at == known.stored_bytes and areas not in seen:
            seen.append(areas)
            yield Layout(known.virtual_size, *areas, known.backing_name)


def _tables(known: Known) -> _Tables | None:
    """None: a file of this size was not written by this service."""
    clusters, rest = divmod(known.stored_bytes, CLUSTER_BYTES)
    if rest or clusters < 4:
        return None
    blocks = -(-clusters // COUNTS)
    l1_at = (1 + blocks + -(-blocks // ENTRIES)) * CLUSTER_BYTES
    l1_entries = max(1, -(-known.virtual_size // (ENTRIES * CLUSTER_BYTES)))
    return _Tables(l1_at, l1_at + -(-l1_entries // ENTRIES) * CLUSTER_BYTES, l1_entries)


def _numbers(descriptor: int, tables: _Tables, *, prefers_cluster: bool) -> list[int]:
    """The numbers of the L2 tables that there are."""
    numbers: list[int] = []
    for number, entry in enumerate(_entries(descriptor, tables.l1_at, tables.l1_entries)):
        expected = tables.l2_at + len(numbers) * CLUSTER_BYTES | OWN_COPY
        if _nearest(entry, expected, (_NOTHING,), prefers_cluster=prefers_cluster) == expected:
            numbers.append(number)
    return numbers


class _Reading:
    def __init__(self, descriptor: int, known: Known, tables: _Tables, numbers: list[int], *, prefers_cluster: bool) -> None:
        self._descriptor, self._known, self._tables, self._numbers = descriptor, known, tables, numbers
        self._prefers_cluster = prefers_cluster
        # A copy that stands alone hides nothing.
        self._others = (_NOTHING,) if known.backing_name is None else (_NOTHING, READS_AS_ZEROES)
        #: The end of the file, as the tables say. Known after `extents`.
        self.ends_at = tables.l2_at + len(numbers) * CLUSTER_BYTES

    def extents(self, report: Report) -> tuple[list[Extent], list[Extent]]:
        """What the file holds, and what it hides."""
        data: list[Extent] = []
        zeroes: list[Extent] = []
        for position, number in enumerate(self._numbers):
            first = number * ENTRIES
            count = min(ENTRIES, -(-self._known.virtual_size // CLUSTER_BYTES) - first)
            for index, entry in enumerate(_entries(self._descriptor, self._tables.l2_at + position * CLUSTER_BYTES, count)):
                if entry == _NOTHING:
                    continue
                self._note(entry, first + index, data, zeroes)
            report.alive()
        return data, zeroes

    def _note(self, entry: int, cluster: int, data: list[Extent], zeroes: list[Extent]) -> None:
        expected = self.ends_at | OWN_COPY
        nearest = entry if entry == expected else _nearest(entry, expected, self._others, prefers_cluster=self._prefers_cluster)
        start = cluster * CLUSTER_BYTES
        end = min(start + CLUSTER_BYTES, self._known.virtual_size)
        if nearest == expected:
            append(data, start, end)
            self.ends_at += CLUSTER_BYTES
        elif nearest == READS_AS_ZEROES:
            append(zeroes, start, end)


def _nearest(entry: int, expected: int, others: tuple[int, ...], *, prefers_cluster: bool) -> int:
    """The choice that differs from the entry in the fewest bits."""
    choices = [expected, *others] if prefers_cluster else [*others, expected]
    return min(choices, key=lambda choice: (entry ^ choice).bit_count())


def _entries(descriptor: int, offset: int, count: int) -> "array[int]":
    """What the file does not have any more counts as empty. Raises OSError."""
    content = b""
    while len(content) < 8 * count and (piece := os.pread(descriptor, 8 * count - len(content), offset + len(content))):
        content += piece
    return from_big_endian(content.ljust(8 * count, b"\0"))
