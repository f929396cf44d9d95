"""Writes a disk of a sealed point to a new file or a device, and compares each block with its digest before it is written."""

import os
import threading
from typing import Any

from service.errors import StillpointError
from service.repository import extents, stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import CLUSTER_BYTES, Block, Extent
from service.repository.new_file import NewFile
from service.repository.qcow2_file import Layout, Qcow2File
from service.repository.reading import Opened, Tally, read_blocks
from service.repository.report import Report
from service.repository.stored_chain import StoredImage, damaged
from service.repository.stored_disk import opened, stored_digests
from service.repository.writing import RawTarget, Target


def restore_disk(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. Raises PointDamaged, PointIncomplete, TargetFull, StorageRefused (also if the target is there already).

    A partial target is removed.
    """
    path, folder, size = arguments["path"], arguments["folder"], arguments["virtual_size"]
    chain = stored_chain.chain(path, folder, arguments["file"])
    expected = stored_digests(path, folder, arguments["blocks_file"], size)
    new = NewFile.asked(arguments, needed_bytes=size)
    is_encrypted = bool(arguments.get("encrypted"))
    with new.opened() as descriptor, opened(chain, size, report, is_encrypted=is_encrypted) as disk:
        # On a device everything is written: what it held before must not show.
        data = [(0, size)] if new.is_device else extents.rounded(disk.data, CLUSTER_BYTES, size)
        target = _target(new, arguments.get("target_format", "qcow2"), descriptor, size, data)
        written = _restored(disk, data, _CheckedCopy(target, expected, chain[0]), report)
    return {"written_bytes": written, "content": expected.content()}


def _target(new: NewFile, target_format: str, descriptor: int, size: int, data: list[Extent]) -> Target:
    if not new.is_device and target_format == "qcow2":
        return Qcow2File(descriptor, new.path, Layout(size, data, [], None), new.explained, is_hashed=False)
    try:
        if not new.is_device:
            os.ftruncate(descriptor, size)
    except OSError as error:
        raise new.explained(error, new.path, "writing") from error
    return RawTarget(descriptor, new.path, new.explained, must_zero=new.is_device)


def _restored(disk: Opened, data: list[Extent], copy: "_CheckedCopy", report: Report) -> int:
    copy.check_zeroes(data)
    total = extents.bytes_of_blocks(data, disk.size)
    read_blocks(disk.readers, extents.blocks(data, disk.size), copy.take, Tally(report, total), copy.target.give_up)
    copy.target.finish(report)
    return copy.written_bytes


class _CheckedCopy:
    """Writes the blocks whose digest is right. For several threads."""

    def __init__(self, target: Target, expected: Digests, image: StoredImage) -> None:
        self.target, self._expected, self._image = target, expected, image
        self._lock = threading.Lock()
        self.written_bytes = 0

    def check_zeroes(self, wanted: list[Extent]) -> None:
        """What is not read is zeroes. Raises PointDamaged where the point says that it is not."""
        size = self._expected.size
        read = {block.number for block in extents.blocks(wanted, size)}
        for number in self._expected.not_zeroes():
            if number not in read:
                raise self._damaged(number)

    def take(self, index: int, block: Block, content: bytearray) -> None:
        if digest(content) != self._expected[block.number]:
            raise self._damaged(block.number)
        written = self.target.put(index, block, content)
        with self._lock:
            self.written_bytes += written

    def _damaged(self, number: int) -> StillpointError:
        return damaged(self._image.folder, self._image.path, f"block {number} is not what it was when the point was sealed")
