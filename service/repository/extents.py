"""Which parts of an image hold data, and which were written since a checkpoint, as its server knows them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from service.model.repository import BLOCK_BYTES
from service.repository.report import Report

ALLOCATION = "base:allocation"
_ZERO = 2
"""The flag of `base:allocation` for what reads as zeroes. Its other flag says nothing of the content."""
_DIRTY = 1
_ASK_BYTES = 1 << 30
"""Bytes that one question covers. The protocol's own limit is 4 GiB - 1. The server may know less at a time, and is asked again."""

#: First byte, and the byte after the last one.
Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """One block, and the pieces of it that are of interest. A piece never leaves its block."""

    number: int
    start: int
    length: int
    pieces: tuple[Extent, ...]


def bitmap_context(bitmap: str) -> str:
    return f"qemu:dirty-bitmap:{bitmap}"


def data(handle: Any, report: Report) -> list[Extent]:
    """What may hold other bytes than zeroes. In order, and none touches the next."""
    return _extents(handle, ALLOCATION, lambda flags: not flags & _ZERO, report)


def dirty(handle: Any, bitmap: str, report: Report) -> list[Extent]:
    """What was written while the bitmap recorded."""
    return _extents(handle, bitmap_context(bitmap), lambda flags: bool(flags & _DIRTY), report)


def _extents(handle: Any, context: str, is_wanted: Any, report: Report) -> list[Extent]:
    extents: list[Extent] = []
    position, size = 0, handle.get_size()
    while position < size:
        answers: list[int] = []

        def note(name: str, _offset: int, entries: list[int], _error: int, answers: list[int] = answers) -> int:
            if name == context:
                answers.extend(entries)
            return 0

        handle.block_status(min(size - position, _ASK_BYTES), position, note)
        for length, flags in zip(answers[::2], answers[1::2], strict=True):
            if is_wanted(flags):
                _append(extents, position, min(position + length, size))
            position += length
        report.alive()
    return extents


def _append(extents: list[Extent], start: int, end: int) -> None:
    if extents and extents[-1][1] >= start:
        extents[-1] = (extents[-1][0], max(end, extents[-1][1]))
    else:
        extents.append((start, end))


def union(several: Iterable[Iterable[Extent]]) -> list[Extent]:
    joined: list[Extent] = []
    for start, end in sorted(extent for extents in several for extent in extents):
        _append(joined, start, end)
    return joined


def rounded(extents: Iterable[Extent], grain: int, size: int) -> list[Extent]:
    """The extents, made larger to whole multiples of `grain`."""
    larger: list[Extent] = []
    for start, end in extents:
        if start < size:
            _append(larger, start // grain * grain, min(-(-end // grain) * grain, size))
    return larger


def total(extents: Iterable[Extent]) -> int:
    return sum(end - start for start, end in extents)


def block_count(size: int) -> int:
    return -(-size // BLOCK_BYTES)


def blocks(extents: Iterable[Extent], size: int) -> Iterator[Block]:
    """The blocks that the extents touch, in order."""
    number, pieces = -1, list[Extent]()
    for start, end in extents:
        while start < end:
            its_number = start // BLOCK_BYTES
            if its_number != number:
                if pieces:
                    yield _block(number, pieces, size)
                number, pieces = its_number, []
            cut = min(end, (its_number + 1) * BLOCK_BYTES)
            pieces.append((start, cut))
            start = cut  # noqa: PLW2901 - the rest of the extent is in the next block
    if pieces:
        yield _block(number, pieces, size)


def _block(number: int, pieces: list[Extent], size: int) -> Block:
    start = number * BLOCK_BYTES
    return Block(number, start, min(BLOCK_BYTES, size - start), tuple(pieces))


def bytes_of_blocks(extents: Iterable[Extent], size: int) -> int:
    """The bytes of all blocks that the extents touch."""
    return total(rounded(extents, BLOCK_BYTES, size))
