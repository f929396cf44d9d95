"""Writes a disk of a sealed point to a new file or a device, and compares each block with its digest before it is written."""

import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service.errors import StillpointError, StorageRefused
from service.repository import extents, stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import CLUSTER_BYTES, Block, Extent
from service.repository.failures import of_target
from service.repository.qcow2_file import Layout, Qcow2File
from service.repository.reading import Tally, read_blocks
from service.repository.report import Report
from service.repository.stored_chain import StoredImage, damaged
from service.repository.stored_disk import opened, stored_digests
from service.repository.writing import RawTarget, Target

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICE = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True)
class Restore:
    """What is asked for. `is_device`: the target is a block device that is there, and is overwritten."""

    repository: str
    folder: str
    file: str
    target: Path
    target_format: str
    blocks_file: str
    virtual_size: int
    is_encrypted: bool
    owner: tuple[int, int] | None
    is_device: bool


def restore_disk(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. Raises PointDamaged, PointIncomplete, TargetFull, StorageRefused (also if the target is there already).

    A partial target is removed.
    """
    restore = _asked(arguments)
    chain = stored_chain.chain(restore.repository, restore.folder, restore.file)
    expected = stored_digests(restore.repository, restore.folder, restore.blocks_file, restore.virtual_size)
    with _new_target(restore) as descriptor:
        written = _restored(restore, chain, expected, descriptor, report)
    return {"written_bytes": written, "content": expected.content()}


def _asked(arguments: Mapping[str, Any]) -> Restore:
    owner = arguments.get("owner")
    return Restore(
        repository=arguments["path"],
        folder=arguments["folder"],
        file=arguments["file"],
        target=Path(arguments["target"]),
        target_format=arguments.get("target_format", "qcow2"),
        blocks_file=arguments["blocks_file"],
        virtual_size=arguments["virtual_size"],
        is_encrypted=bool(arguments.get("encrypted")),
        owner=(owner[0], owner[1]) if owner else None,
        is_device=bool(arguments.get("is_device")),
    )


@contextmanager
def _new_target(restore: Restore) -> Iterator[int]:
    """The descriptor of the new file, which is removed if anything fails. It is never a file that was there before."""
    try:
        descriptor = os.open(restore.target, _DEVICE if restore.is_device else _NEW_FILE, 0o600)
    except OSError as error:
        raise _of_target(restore, error, restore.target, "making") from error
    try:
        if restore.is_device:
            _check_device(restore, descriptor)
        yield descriptor
        if not restore.is_device:
            _hand_over(restore, descriptor)
    except BaseException:
        if not restore.is_device:
            with suppress(OSError):
                restore.target.unlink()
        raise
    finally:
        os.close(descriptor)


def _check_device(restore: Restore, descriptor: int) -> None:
    if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
        raise StorageRefused(what="writing", path=str(restore.target), reason="not a block device", errno=None)
    if (size := os.lseek(descriptor, 0, os.SEEK_END)) < restore.virtual_size:
        reason = f"the device has {size} bytes, and the disk has {restore.virtual_size} bytes"
        raise StorageRefused(what="writing", path=str(restore.target), reason=reason, errno=None)


def _hand_over(restore: Restore, descriptor: int) -> None:
    try:
        if restore.owner is not None:
            os.fchown(descriptor, *restore.owner)
        folder = os.open(restore.target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _of_target(restore, error, restore.target, "writing") from error


def _of_target(restore: Restore, error: OSError, path: str | Path, what: str) -> StillpointError:
    return of_target(error, path, what, needed_bytes=restore.virtual_size)


def _restored(restore: Restore, chain: list[StoredImage], expected: Digests, descriptor: int, report: Report) -> int:
    size = restore.virtual_size
    with opened(chain, size, report, is_encrypted=restore.is_encrypted) as disk:
        # On a device everything is written: what it held before must not show.
        data = [(0, size)] if restore.is_device else extents.rounded(disk.data, CLUSTER_BYTES, size)
        target = _target(restore, descriptor, data)
        copy = _CheckedCopy(target, expected, chain[0])
        copy.check_zeroes(data)
        read_blocks(disk.readers, extents.blocks(data, size), copy.take, Tally(report, extents.bytes_of_blocks(data, size)), target.give_up)
        target.finish(report)
    return copy.written_bytes


def _target(restore: Restore, descriptor: int, data: list[Extent]) -> Target:
    explained = partial(_of_target, restore)
    if not restore.is_device and restore.target_format == "qcow2":
        return Qcow2File(descriptor, restore.target, Layout(restore.virtual_size, data, [], None), explained, is_hashed=False)
    try:
        if not restore.is_device:
            os.ftruncate(descriptor, restore.virtual_size)
    except OSError as error:
        raise explained(error, restore.target, "writing") from error
    return RawTarget(descriptor, restore.target, explained, must_zero=restore.is_device)


class _CheckedCopy:
    """Writes the blocks whose digest is right. For several threads."""

    def __init__(self, target: Target, expected: Digests, image: StoredImage) -> None:
        self._target, self._expected, self._image = target, expected, image
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
        written = self._target.put(index, block, content)
        with self._lock:
            self.written_bytes += written

    def _damaged(self, number: int) -> StillpointError:
        return damaged(self._image.folder, self._image.path, f"block {number} is not what it was when the point was sealed")
