"""Makes the file of a damaged image again, byte for byte as it was sealed, in a draft beside the point.

The header and the tables are made again (`layout_recovery`). What the file holds is taken from the damaged file, block by block: where a
block that the guest saw is not what its digest says, its good bytes are searched for elsewhere (`block_search`). An image that QEMU has
encrypted or compressed is copied, and QEMU writes the good blocks again: the same bytes at the same place become the same bytes.

Whether all of this was right is told by one comparison that the caller makes: SHA-256 of the draft with that of the sealed file.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import PointDamaged
from service.model.manifest import DiskOfPoint, StoredFile
from service.repository import extents, layout_recovery, stored_chain
from service.repository.block_search import LiveDisk, Missing, StoredDisk, search
from service.repository.compressed_blocks import CompressedWriter
from service.repository.digests import Digests, digest
from service.repository.extents import CLUSTER_BYTES, Block, Extent
from service.repository.failures import in_repository
from service.repository.images import ALONE, Image, QemuImgFailed, qemu_img_lines
from service.repository.nbd_server import NbdServer
from service.repository.qcow2_file import Layout
from service.repository.reading import Reader, ReadFailed, Tally, read_blocks
from service.repository.report import Report
from service.repository.stored_chain import StoredImage, damaged
from service.repository.stored_disk import opened

MAX_UNREADABLE = 256
"""How often an image is opened again after a block that QEMU cannot read. With more of them it is not healed."""
MAX_REWRITTEN = 1024
"""Blocks that are compressed again where all of them show the right content, and the file is not right. A larger image is not healed."""
COPY_BYTES = 1 << 20
"""Bytes of one read of a copy."""
_ZEROES = bytes(CLUSTER_BYTES)


@dataclass(frozen=True)
class Rebuilding:
    """`draft`: of the new file, relative to the repository. `digests`: of what the guest saw at this point. `search_in`: where good blocks
    may be, in this order. `is_right`: whether the draft is what was sealed."""

    repository: str
    draft: str
    disk: DiskOfPoint
    stored: StoredFile
    backing_name: str | None
    digests: Digests
    search_in: Sequence[StoredDisk]
    live: Sequence[LiveDisk]
    report: Report
    is_right: Callable[[], bool]


@dataclass(frozen=True)
class Rebuilt:
    """`missing`: blocks of which no good copy was found."""

    is_right: bool
    sources: Sequence[dict[str, Any]] = ()
    missing: Sequence[int] = ()
    has_layout: bool = True


def rebuild(asked: Rebuilding, old: int, draft: int) -> Rebuilt:
    """`old`, `draft`: descriptors; the draft is empty. Raises what the storage raises, KeyUnusable."""
    last = Rebuilt(is_right=False, has_layout=False)
    for layout in _layouts(asked, old):
        with in_repository(_path(asked), "writing"):
            _fill(asked, layout, old, draft)
        if asked.is_right():
            return Rebuilt(is_right=True)
        last = _repaired(asked, layout, draft)
        if last.is_right:
            break
    return last


def _layouts(asked: Rebuilding, old: int) -> Iterator[Layout | None]:
    """None: QEMU has written the image, and only its tables tell the layout."""
    if asked.disk.is_encrypted or asked.disk.is_compressed:
        yield None
    else:
        known = layout_recovery.Known(asked.stored.bytes, asked.disk.virtual_size, asked.backing_name)
        yield from layout_recovery.layouts(old, known, asked.report)


def _fill(asked: Rebuilding, layout: Layout | None, old: int, draft: int) -> None:
    os.ftruncate(draft, 0)
    os.ftruncate(draft, asked.stored.bytes)
    _copy(asked, old, draft, layout.data_at if layout is not None else 0)
    position = 0
    for part in layout.metadata() if layout is not None else ():
        _write(draft, part, position)
        position += len(part)


def _copy(asked: Rebuilding, old: int, draft: int, begin: int) -> None:
    """What the damaged file has from `begin` on. What it does not have any more stays zeroes."""
    position = begin
    while position < asked.stored.bytes and (piece := os.pread(old, min(COPY_BYTES, asked.stored.bytes - position), position)):
        for start in range(0, len(piece), CLUSTER_BYTES):
            cluster = piece[start : start + CLUSTER_BYTES]
            if cluster != _ZEROES[: len(cluster)]:
                _write(draft, cluster, position + start)
        position += len(piece)
        asked.report.progress(position, asked.stored.bytes)
        asked.report.wait_for_pace(len(piece))


def _write(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _allocated(asked: Rebuilding) -> list[Extent]:
    """Where the draft itself holds data, as its tables say. Empty: they cannot be read."""
    image = Image(_path(asked), "qcow2", backing=ALONE, is_encrypted=asked.disk.is_encrypted)
    areas: list[Extent] = []
    try:
        for line in qemu_img_lines("map", ["--output=json", image.name()], asked.report):
            text = line.strip().strip("[],")
            if text and (entry := json.loads(text))["depth"] == 0 and entry["data"]:
                extents.append(areas, entry["start"], entry["start"] + entry["length"])
                asked.report.alive()
    except QemuImgFailed:
        return []
    return areas


def _path(asked: Rebuilding) -> str:
    return str(Path(asked.repository, asked.draft))


# --- the blocks -----------------------------------------------------------------------------------


def _repaired(asked: Rebuilding, layout: Layout | None, draft: int) -> Rebuilt:
    areas = layout.data if layout is not None else _allocated(asked)
    pieces = {block.number: block for block in extents.blocks(areas, asked.disk.virtual_size)}
    bad = _bad_blocks(asked, list(pieces.values()))
    if not bad and asked.disk.is_compressed and len(pieces) <= MAX_REWRITTEN:
        # A changed bit of what is compressed may show the same content.
        bad = sorted(pieces)
    if not bad:
        return Rebuilt(is_right=False)
    with _writer(asked, layout, draft) as write:

        def take(number: int, content: bytes) -> None:
            block = pieces[number]
            for start, end in block.pieces:
                write(memoryview(content)[start - block.start : end - block.start], start)

        missing = Missing.of(bad, asked.digests, take)
        search(asked.repository, missing, asked.search_in, asked.live, asked.report)
    left = sorted(number for numbers in missing.blocks.values() for number in numbers)
    return Rebuilt(is_right=not left and asked.is_right(), sources=missing.sources, missing=left)


def _bad_blocks(asked: Rebuilding, blocks: Sequence[Block]) -> list[int]:
    """The blocks that the draft, on the images below, shows otherwise than they were, or not at all."""
    seen: set[int] = set()
    bad: list[int] = []
    for _ in range(MAX_UNREADABLE):
        unreadable = _looked_at(asked, [block for block in blocks if block.number not in seen], seen, bad)
        if not unreadable:
            return sorted(bad)
        # QEMU may end the connection after an error. So the image is opened again for the rest.
        bad += unreadable
        seen.update(unreadable)
    raise damaged(asked.draft, _path(asked), f"QEMU cannot read {len(bad)} of its blocks, or more")


def _looked_at(asked: Rebuilding, blocks: Sequence[Block], seen: set[int], bad: list[int]) -> list[int]:
    """Returns the blocks that could not be read. What was looked at before is in `seen`."""
    unreadable: list[int] = []

    class Noting:
        def __init__(self, reader: Reader) -> None:
            self._reader = reader

        def read(self, block: Block) -> bytearray:
            try:
                return self._reader.read(block)
            except (ReadFailed, OSError):
                unreadable.append(block.number)
                raise

    def look(_index: int, block: Block, content: bytearray) -> None:
        seen.add(block.number)
        if digest(content) != asked.digests[block.number]:
            bad.append(block.number)

    try:
        with opened(_chain(asked), asked.disk.virtual_size, asked.report, is_encrypted=asked.disk.is_encrypted) as disk:
            read_blocks(
                [Noting(reader) for reader in disk.readers], blocks, look, Tally(asked.report, sum(block.length for block in blocks))
            )
    except PointDamaged:
        if not unreadable:
            raise
    return unreadable


def _chain(asked: Rebuilding) -> list[StoredImage]:
    folder, name = asked.draft.rsplit("/", 1)
    return stored_chain.chain(asked.repository, folder, name)


@contextmanager
def _writer(asked: Rebuilding, layout: Layout | None, draft: int) -> Iterator[Callable[[memoryview, int], None]]:
    """Writes bytes of the disk, from a place of the disk on, into the draft."""
    if layout is not None:
        yield lambda content, start: _write(draft, content, layout.offset_of(start))
        return
    if asked.disk.is_compressed:
        yield CompressedWriter(draft, Path(f"{_path(asked)}-again"), asked.report).write
        return
    image = stored_chain.as_image(_chain(asked), is_encrypted=True)
    with NbdServer(image, connections=1, report=asked.report, is_writable=True) as server:
        handle = server.connect()[0]
        yield handle.pwrite
        handle.flush()
