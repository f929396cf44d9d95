"""The point on which an increment will stand: whether it is as it was sealed, and whether the disk is the one that it was taken of.

An increment takes over what its parent says of all that was not written since. So both are looked at before anything is copied.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import PointIncomplete
from service.model.repository import BLOCK_BYTES
from service.repository import stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import Block, Extent
from service.repository.reading import Opened, ReadFailed
from service.repository.report import Report
from service.repository.stored_chain import damaged
from service.repository.stored_disk import opened, stored_digests
from service.repository.verifying import Faults, point_chain, stored_manifest

SAMPLES = 16
"""Blocks that are read of a disk to see whether it is the one of the parent. Holes are compared without reading, all of them."""


def check_parent(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step: whether a point and those below it are there with the sizes that were sealed, and its digests as they were sealed.

    A verify reads every byte; this looks only. An encrypted disk is opened, so that a wrong key is told before anything is frozen.
    Raises PointDamaged, PointIncomplete, ForeignEntry, KeyUnusable.
    """
    repository, folder = arguments["path"], arguments["folder"]
    faults = Faults()
    chain = point_chain(repository, folder, faults)
    for fault in faults.faults:
        if fault["file"] is None:
            raise PointIncomplete(point=folder, missing=fault["folder"], next_good=None)
        raise damaged(fault["folder"], f"{fault['folder']}/{fault['file']}", fault["reason"])
    for point in chain:
        for file in point.manifest.files:
            path = stored_chain.regular_file(repository, point.folder, file.name, of_point=folder)
            if (size := path.stat().st_size) != file.bytes:
                raise damaged(point.folder, path, f"it has {size} bytes, and {file.bytes} were sealed")
        report.alive()
    for disk in next(point.manifest.disks for point in chain if point.folder == folder):
        digests_of_parent(repository, {"folder": folder, "file": disk.file, "blocks_file": disk.blocks_file})
        if disk.is_encrypted:
            with opened(stored_chain.chain(repository, folder, disk.file), disk.virtual_size, report, is_encrypted=True):
                report.alive()
    return {"points": len(chain)}


def digests_of_parent(repository: str, parent: Mapping[str, str]) -> Digests:
    """Raises PointDamaged (also if the digests are not those that were sealed), PointIncomplete, ForeignEntry."""
    folder, file = parent["folder"], parent["blocks_file"]
    manifest = stored_manifest(repository, folder, of_point=folder)
    disk = next((disk for disk in manifest.disks if disk.file == parent["file"]), None)
    if disk is None:
        raise damaged(folder, f"{folder}/{parent['file']}", "the manifest does not name it")
    digests = stored_digests(repository, folder, file, disk.virtual_size)
    if digests.content() != disk.content:
        raise damaged(folder, f"{folder}/{file}", "its digests are not those that were sealed")
    return digests


def why_not_of(older: Digests, disk: Opened, dirty: Sequence[Extent], report: Report) -> str | None:
    """Why the disk cannot be the one of the parent: where nothing was written since, it is not what the parent holds. None: it may be it.

    Disks may have changed places: a checkpoint has one name for the bitmaps of all disks. Raises ReadFailed.
    """
    common = min(older.size, disk.size) // BLOCK_BYTES
    written, with_data = _touched(dirty), _touched(disk.data)
    for number in older.not_zeroes():
        if number < common and number not in written and number not in with_data:
            return _difference(number)
    still = sorted(number for number in with_data - written if number < common)
    for number in still[:: max(1, len(still) // SAMPLES)][:SAMPLES] + still[-1:]:
        block = Block(0, number, number * BLOCK_BYTES, BLOCK_BYTES, ())
        report.wait_for_pace(block.length)
        if digest(_read(disk, block)) != older[number]:
            return _difference(number)
    return None


def _touched(parts: Sequence[Extent]) -> set[int]:
    return {number for start, end in parts for number in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES))}


def _read(disk: Opened, block: Block) -> bytearray:
    try:
        return disk.readers[0].read(block)
    except OSError as error:
        raise ReadFailed(error.strerror or str(error)) from error


def _difference(number: int) -> str:
    return f"block {number} is not what the last point holds, and the bitmap says that it was not written since"
