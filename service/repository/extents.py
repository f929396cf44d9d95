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

CLUSTER_BYTES = 65536
"""Bytes of a cluster of the images. Less than that is never written, so that nothing has to be read from the image below."""
_ZEROES = bytes(CLUSTER_BYTES)

#: First byte, and the byte after the last one.
Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """One block, and the pieces of it that are of interest. A piece never leaves its block. `order`: 0 for the first that is read."""

    order: int
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
                append(extents, position, min(position + length, size))
            position += length
        report.alive()
    return extents


def append(extents: list[Extent], start: int, end: int) -> None:
    """Add what begins at or after the beginning of the last extent."""
    if extents and extents[-1][1] >= start:
        extents[-1] = (extents[-1][0], max(end, extents[-1][1]))
    else:
        extents.append((start, end))


def union(several: Iterable[Iterable[Extent]]) -> list[Extent]:
    joined: list[Extent] = []
    for start, end in sorted(extent for extents in several for extent in extents):
        append(joined, start, end)
    return joined


def rounded(extents: Iterable[Extent], grain: int, size: int) -> list[Extent]:
    """The extents, made larger to whole multiples of `grain`."""
    larger: list[Extent] = []
    for start, end in extents:
        if start < size:
            append(larger, start // grain * grain, min(-(-end // grain) * grain, size))
    return larger


def total(extents: Iterable[Extent]) -> int:
    return sum(end - start for start, end in extents)


def block_count(size: int) -> int:
    return -(-size // BLOCK_BYTES)


def without(extents: Iterable[Extent], others: Iterable[Extent]) -> list[Extent]:
    """What is in `extents` and not in `others`, both in order."""
    rest: list[Extent] = []
    holes, hole = iter(others), None
    hole = next(holes, None)
    for start, end in extents:
        position = start
        while hole is not None and hole[0] < end:
            if hole[0] > position:
                rest.append((position, hole[0]))
            position = max(position, hole[1])
            if hole[1] > end:
                break
            hole = next(holes, None)
        if position < end:
            rest.append((position, end))
    return rest


def blocks(data: Iterable[Extent], size: int, others: Iterable[Extent] = ()) -> Iterator[Block]:
    """The blocks that `data` or `others` touch, in order. Their pieces are those of `data`."""
    with_data = _pieces(data)
    its_number, pieces = next(with_data, (-1, ()))
    touched = _pieces(union([data, others])) if others else _pieces(data)
    for order, (number, _) in enumerate(touched):
        start = number * BLOCK_BYTES
        has_data = number == its_number
        yield Block(order, number, start, min(BLOCK_BYTES, size - start), pieces if has_data else ())
        if has_data:
            its_number, pieces = next(with_data, (-1, ()))


def _pieces(extents: Iterable[Extent]) -> Iterator[tuple[int, tuple[Extent, ...]]]:
    """The numbers of the blocks, and the extents cut at the borders of blocks."""
    number, pieces = -1, list[Extent]()
    for start, end in extents:
        position = start
        while position < end:
            its_number = position // BLOCK_BYTES
            if its_number != number:
                if pieces:
                    yield number, tuple(pieces)
                number, pieces = its_number, []
            cut = min(end, (its_number + 1) * BLOCK_BYTES)
            pieces.append((position, cut))
            position = cut
    if pieces:
        yield number, tuple(pieces)


def bytes_of_blocks(extents: Iterable[Extent], size: int) -> int:
    """The bytes of all blocks that the extents touch."""
    return total(rounded(extents, BLOCK_BYTES, size))


def runs(content: bytearray, block: Block) -> Iterator[tuple[int, int, bool]]:
    """The pieces of the block as runs of clusters that are zeroes, and runs that are not: first byte, byte after the last, zeroes."""
    for start, end in block.pieces:
        begun, position, was_zero = start, start, False
        while position < end:
            stop = min(position + CLUSTER_BYTES, end)
            is_zero = content.startswith(_ZEROES[: stop - position], position - block.start)
            if is_zero != was_zero and position > begun:
                yield begun, position, was_zero
                begun = position
            was_zero, position = is_zero, stop
        yield begun, end, was_zero
