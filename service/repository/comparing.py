"""Reads back what was copied, before the point is published: the image through its whole chain, and the source again."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from service.errors import CopyDiffers
from service.model.repository import BLOCK_BYTES, Compare
from service.repository import extents, source_disk, stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import Block, Extent
from service.repository.failures import in_repository
from service.repository.images import ALONE, Image
from service.repository.nbd_server import ServerFailed
from service.repository.reading import Opened, ReadFailed, Tally, opened_image, read_blocks
from service.repository.report import Report
from service.repository.stored_chain import StoredImage
from service.repository.stored_disk import opened, stored_digests


def compare_disk(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. `compare`: `copied`: the blocks of this copy are read back. `everything`: all blocks, and the source is read a second time.

    Only that can show that a bitmap did not tell everything. Raises CopyDiffers, PointDamaged, StorageRefused.
    """
    path, folder, name = arguments["path"], arguments["partial"], arguments["name"]
    size, is_encrypted = arguments["virtual_size"], bool(arguments.get("encrypted"))
    chain = stored_chain.chain(path, folder, name)
    _forget_cached(chain)
    copied = stored_digests(path, folder, arguments.get("blocks_file", f"{Path(name).stem}.blocks"), size)
    comparison = _Comparison(copied, chain[0].path, Path(name).stem, report)
    with opened(chain, size, report, is_encrypted=is_encrypted) as disk:
        if Compare(arguments["compare"]) == Compare.copied:
            comparison.compare(disk, _of_this_copy(chain[0], arguments, copied, report))
        else:
            comparison.compare(disk, [(0, size)] if size else [])
    if Compare(arguments["compare"]) == Compare.everything:
        _compare_source(arguments["source"], comparison)
    return {"compared_bytes": comparison.tally.done}


def _forget_cached(chain: list[StoredImage]) -> None:
    """What is read back comes from the storage. The copy was synced, so that the cache can be dropped."""
    with in_repository(chain[0].path, "reading", is_write=False):
        descriptor = os.open(chain[0].path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _of_this_copy(image: StoredImage, arguments: Mapping[str, Any], copied: Digests, report: Report) -> list[Extent]:
    """The blocks that have data in the new image itself, and those that differ from the parent: some are zeroes now."""
    size = copied.size
    parent = arguments.get("parent")
    if parent is None:
        differing: list[Extent] = []
    else:
        earlier = stored_chain.chain(arguments["path"], parent["folder"], parent["file"])[0]
        older = stored_digests(arguments["path"], parent["folder"], parent["blocks_file"], earlier.header.virtual_size)
        differing = [(number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, size)) for number in copied.not_those_of(older)]
    is_encrypted = bool(arguments.get("encrypted"))
    alone = Image(str(image.path), "qcow2", backing=ALONE, is_encrypted=is_encrypted)
    with opened_image(alone, None if is_encrypted else [str(image.path)], report) as top:
        return extents.rounded(extents.union([top.data, differing]), BLOCK_BYTES, size)


def _compare_source(source: Mapping[str, str], comparison: "_Comparison") -> None:
    file, image_format = source["file"], source["format"]
    try:
        with opened_image(Image(file, image_format, is_in_use=True), source_disk.files(file, image_format), comparison.report) as disk:
            comparison.compare(disk, [(0, disk.size)] if disk.size else [])
    except (ServerFailed, ReadFailed) as failed:
        raise source_disk.unreadable(file, failed.reason) from failed


class _Comparison:
    def __init__(self, expected: Digests, path: Path, disk: str, report: Report) -> None:
        self._expected, self._path, self._disk, self.report = expected, path, disk, report
        self.tally = Tally(report, 0)

    def compare(self, disk: Opened, wanted: Iterable[Extent]) -> None:
        """Raises CopyDiffers. What the image says is zeroes is not read."""
        shown, size = Digests(self._expected.size), self._expected.size
        numbers = [block.number for block in extents.blocks(wanted, size)]

        def note(_index: int, block: Block, content: bytearray) -> None:
            shown[block.number] = digest(content)

        wanted_numbers = set(numbers)
        blocks = [block for block in extents.blocks(disk.data, size) if block.number in wanted_numbers]
        self.tally.total += sum(min(BLOCK_BYTES, size - number * BLOCK_BYTES) for number in numbers)
        self.tally.add(self.tally.total - self.tally.done - sum(block.length for block in blocks))
        read_blocks(disk.readers, blocks, note, self.tally)
        if differing := [number for number in numbers if shown[number] != self._expected[number]]:
            raise CopyDiffers(path=str(self._path), disk=self._disk, block=differing[0], blocks=len(differing))
