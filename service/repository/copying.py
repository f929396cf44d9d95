"""Copies one disk into the folder of a point that is not published yet.

A full copy writes what is not zeroes. An increment writes what the bitmap names, or, by content, the blocks whose digest differs from
the parent's. The digests of blocks that were not read are those of the parent.
"""

import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import RepositoryRefused, SourceWritten
from service.model.repository import BLOCK_BYTES, DiskLevel
from service.repository import extents, images, places, source_disk, stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import CLUSTER_BYTES, Block, Extent
from service.repository.failures import in_repository, of_repository, of_source
from service.repository.image_key import is_about_the_key, need_key, wrong_key
from service.repository.images import Image
from service.repository.nbd_server import NbdServer, ServerFailed
from service.repository.parent import digests_of_parent, why_not_of
from service.repository.partial import DONE_SUFFIX
from service.repository.qcow2_file import Layout, Qcow2File
from service.repository.reading import READERS, Opened, ReadFailed, Tally, opened_image, read_blocks
from service.repository.report import Report
from service.repository.writing import ServedTarget, Target

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL
MAX_MARKER_BYTES = 65536
"""Bytes of the file that says that a disk is copied. A larger one is not ours, and is refused."""


@dataclass(frozen=True)
class Copy:
    """What is asked for. `folder`: the partial folder of the point, relative to the repository."""

    repository: str
    folder: str
    name: str
    file: str
    format: str
    virtual_size: int
    #: With a bitmap and a parent: what the bitmap names. With a parent only: what differs from the parent. Without: everything.
    bitmap: str | None = None
    parent: Mapping[str, str] | None = None
    is_compressed: bool = False
    is_encrypted: bool = False
    #: Time and size of the file when the point was taken. None: they are not known, and are taken when the copy begins.
    still: Mapping[str, int] | None = None

    @property
    def path(self) -> Path:
        return Path(self.repository, self.folder, self.name)

    @property
    def blocks_file(self) -> str:
        return f"{Path(self.name).stem}.blocks"

    @property
    def done_marker(self) -> str:
        return f"{Path(self.name).stem}{DONE_SUFFIX}"

    @property
    def backing_name(self) -> str | None:
        return f"../{Path(self.parent['folder']).name}/{self.parent['file']}" if self.parent is not None else None


def copy_disk(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. A disk that was finished by an earlier try is not copied again. A disk that was not is begun again."""
    copy = _asked(arguments)
    with places.opened_folder(copy.repository, copy.folder) as folder:
        if (result := _finished_before(copy, folder)) is not None:
            return result
        with in_repository(copy.path, "removing"), suppress(FileNotFoundError):
            os.unlink(copy.name, dir_fd=folder)
    result = _copied(copy, report)
    with places.opened_folder(copy.repository, copy.folder) as folder:
        places.write_text(folder, copy.done_marker, copy.path.with_name(copy.done_marker), json.dumps(result))
    return result


def _finished_before(copy: Copy, folder: int) -> dict[str, Any] | None:
    try:
        text = places.text_of(folder, copy.done_marker, copy.path.with_name(copy.done_marker), MAX_MARKER_BYTES)
        result: dict[str, Any] = json.loads(text)
        return result if os.lstat(copy.name, dir_fd=folder).st_size == result["stored_bytes"] else None
    except (FileNotFoundError, ValueError):
        return None


def _asked(arguments: Mapping[str, Any]) -> Copy:
    level = DiskLevel(arguments["level"])
    return Copy(
        repository=arguments["path"],
        folder=arguments["partial"],
        name=arguments["name"],
        file=arguments["source"]["file"],
        format=arguments["source"]["format"],
        virtual_size=arguments["virtual_size"],
        bitmap=arguments["bitmap"] if level == DiskLevel.bitmap else None,
        parent=arguments["parent"] if level != DiskLevel.full else None,
        is_compressed=_can_compress(arguments),
        is_encrypted=bool(arguments.get("encrypted")),
        still=arguments["source"].get("still"),
    )


def _can_compress(arguments: Mapping[str, Any]) -> bool:
    """QEMU compresses whole clusters only, and does not compress what it encrypts."""
    is_whole = arguments["virtual_size"] % CLUSTER_BYTES == 0
    return bool(arguments.get("compress")) and not arguments.get("encrypted") and is_whole


def _copied(copy: Copy, report: Report) -> dict[str, Any]:
    need_key(copy.is_encrypted, report, str(copy.path))
    older, still = _parents_digests(copy), copy.still or _last_write(copy.file)
    _must_be_still(copy, still)
    try:
        with _opened_source(copy, report) as (disk, dirty):
            if disk.size != copy.virtual_size:
                raise source_disk.unreadable(copy.file, f"it shows {disk.size} bytes, and the disk has {copy.virtual_size} bytes")
            plan = _plan(copy, disk, dirty, older, report)
            result = _written(copy, disk, plan, report)
            _must_be_still(copy, still)
            return result
    except ServerFailed as failed:
        if failed.image.path == copy.file:
            raise source_disk.unreadable(copy.file, failed.reason) from failed
        if is_about_the_key(failed.reason):
            raise wrong_key(str(copy.path)) from failed
        raise RepositoryRefused(path=failed.image.path, what="opening", reason=failed.reason) from failed
    except ReadFailed as failed:
        raise source_disk.unreadable(copy.file, failed.reason) from failed


def _must_be_still(copy: Copy, still: Mapping[str, int] | None) -> None:
    """Another client may have merged an overlay into it, for example. Raises SourceWritten."""
    if _last_write(copy.file) != still:
        raise SourceWritten(path=copy.file)


def _last_write(file: str) -> dict[str, int] | None:
    """None: a device, which does not tell it. Raises StorageRefused."""
    try:
        status = os.stat(file)  # noqa: PTH116 - in the hand, as the rest of this module
    except OSError as error:
        raise of_source(error, file, "looking at") from error
    return {"mtime_ns": status.st_mtime_ns, "size": status.st_size} if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _opened_source(copy: Copy, report: Report) -> Iterator[tuple[Opened, list[Extent] | None]]:
    """The disk, and what its bitmap names. Raises StorageRefused for a bitmap that is not whole: what it leaves out would be lost."""
    image = Image(copy.file, copy.format, is_in_use=True)
    if copy.bitmap is None:
        with opened_image(image, source_disk.files(copy.file, copy.format), report) as disk:
            yield disk, None
        return
    with NbdServer(image, connections=1, report=report, bitmap=copy.bitmap) as server:
        source = source_disk.read(copy.file, copy.format)
        state, reason = source.state_of(copy.bitmap)
        if state != source_disk.WHOLE:
            raise source_disk.unreadable(copy.file, reason or state)
        with opened_image(image, [layer.file for layer in source.layers], report) as disk:
            handle = server.connect([extents.bitmap_context(copy.bitmap)])[0]
            yield disk, source_disk.dirty_extents(source, copy.bitmap, handle, report)


@dataclass(frozen=True)
class Plan:
    """What is written, in whole clusters, and the digests so far: those of blocks that are not read are right already."""

    data: list[Extent]
    zeroes: list[Extent]
    digests: Digests
    older: Digests | None


def _plan(copy: Copy, disk: Opened, dirty: list[Extent] | None, older: Digests | None, report: Report) -> Plan:
    size, digests = copy.virtual_size, Digests(copy.virtual_size)
    data = extents.rounded(disk.data, CLUSTER_BYTES, size)
    if older is None:
        return Plan(data, [], digests, None)
    if dirty is not None:
        if (reason := why_not_of(older, disk, dirty, report)) is not None:
            raise source_disk.unreadable(copy.file, reason)
        digests.take(older)
        wanted = extents.union([extents.rounded(dirty, CLUSTER_BYTES, size), older.unknown_to_size(size)])
    else:
        wanted = _differing(disk, older, digests, report)
    zeroes = extents.without(wanted, data)
    # Zeroes follow the end of the parent's disk.
    hidden = [(start, min(end, older.size)) for start, end in zeroes if start < older.size]
    return Plan(extents.without(wanted, zeroes), extents.rounded(hidden, CLUSTER_BYTES, size), digests, older)


def _differing(disk: Opened, older: Digests, digests: Digests, report: Report) -> list[Extent]:
    """The blocks that are not those of the parent. Everything is read, without what is zeroes now."""
    size = digests.size
    with_data = list(extents.blocks(disk.data, size))

    def note(_index: int, block: Block, content: bytearray) -> None:
        digests[block.number] = digest(content)

    read_blocks(disk.readers, with_data, note, Tally(report, 2 * sum(block.length for block in with_data)))
    return extents.union([[(block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, size)) for block in digests.not_those_of(older)]])


def _written(copy: Copy, disk: Opened, plan: Plan, report: Report) -> dict[str, Any]:
    with target_of(copy, plan, report) as target:
        writes = Writes(target, plan)
        blocks = extents.blocks(plan.data, copy.virtual_size, plan.zeroes)
        total = extents.bytes_of_blocks(extents.union([plan.data, plan.zeroes]), copy.virtual_size)
        read_blocks(disk.readers, blocks, writes.take, Tally(report, total), target.give_up)
        sha256 = target.finish(report)
    with places.opened_folder(copy.repository, copy.folder) as folder:
        places.write_bytes(folder, copy.blocks_file, copy.path.with_name(copy.blocks_file), plan.digests.as_bytes())
        stored_bytes = os.lstat(copy.name, dir_fd=folder).st_size
    return {
        "stored_bytes": stored_bytes,
        "stored_sha256": sha256,
        "copied_bytes": writes.copied_bytes,
        "content": plan.digests.content(),
        "blocks_file": copy.blocks_file,
        "changed_blocks": writes.changed_blocks,
        "is_compressed": copy.is_compressed,
    }


@contextmanager
def target_of(copy: Copy, plan: Plan, report: Report) -> Iterator[Target]:
    """The new image, which must not be there. Raises RepositoryRefused and its like."""
    with places.opened_folder(copy.repository, copy.folder) as folder:
        descriptor = places.opened_file(folder, copy.name, copy.path, _NEW_FILE)
    try:
        if not copy.is_compressed and not copy.is_encrypted:
            layout = Layout(copy.virtual_size, plan.data, plan.zeroes, copy.backing_name)
            yield Qcow2File(descriptor, copy.path, layout, of_repository)
            return
        image = _served_image(copy, report)
        with NbdServer(image, connections=READERS, report=report, is_writable=True) as server:
            yield ServedTarget(server, copy.path, of_repository, plan.zeroes)
    finally:
        os.close(descriptor)


def _served_image(copy: Copy, report: Report) -> Image:
    """The empty image that QEMU writes, above the images of the parent."""
    try:
        images.create(
            copy.path,
            copy.virtual_size,
            backing_name=copy.backing_name,
            is_compressed=copy.is_compressed,
            encrypted_by=report if copy.is_encrypted else None,
        )
    except images.QemuImgFailed as failed:
        raise RepositoryRefused(path=str(copy.path), what="making", reason=failed.reason) from failed
    below: Image | str = images.ALONE
    if copy.parent is not None:
        parents = stored_chain.chain(copy.repository, copy.parent["folder"], copy.parent["file"])
        below = stored_chain.as_image(parents, is_encrypted=copy.is_encrypted)
    return Image(str(copy.path), "qcow2", backing=below, is_encrypted=copy.is_encrypted, is_compressing=copy.is_compressed)


def _parents_digests(copy: Copy) -> Digests | None:
    if copy.parent is None:
        return None
    stored_chain.chain(copy.repository, copy.parent["folder"], copy.parent["file"])
    return digests_of_parent(copy.repository, copy.parent)


class Writes:
    """Takes the blocks of the source: notes their digests, and writes their pieces. For several threads."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self._target, self._plan = target, plan
        self._lock = threading.Lock()
        self.copied_bytes = self.changed_blocks = 0

    def take(self, index: int, block: Block, content: bytearray) -> None:
        its = self._plan.digests[block.number] = digest(content)
        older = self._plan.older
        is_changed = older is None or older.of_block(block.number, block.length) != its
        written = self._target.put(index, block, content)
        with self._lock:
            self.copied_bytes += written
            self.changed_blocks += is_changed
