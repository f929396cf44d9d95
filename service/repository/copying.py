"""Copies one disk into the folder of a point that is not published yet.

A full copy writes what is not zeroes. An increment reads what the bitmap names, or everything (by content), and writes the blocks
whose digest differs from the parent's. The digests of blocks that were not read are those of the parent.
"""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import RepositoryRefused
from service.model.repository import BLOCK_BYTES, DiskLevel
from service.repository import extents, images, source_disk, stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import Block, Extent
from service.repository.failures import in_repository, of_repository
from service.repository.images import Image
from service.repository.nbd_server import NbdServer, ServerFailed
from service.repository.reading import READERS, ReadFailed, Tally, read_blocks
from service.repository.report import Report
from service.repository.source_disk import Source
from service.repository.stored_disk import stored_digests
from service.repository.writing import ServedTarget, Target, write_whole

CLUSTER_BYTES = 65536
"""Bytes of a cluster of the images. Less than that is never written, so that nothing has to be read from the parent."""
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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

    @property
    def path(self) -> Path:
        return Path(self.repository, self.folder, self.name)

    @property
    def blocks_file(self) -> str:
        return f"{Path(self.name).stem}.blocks"

    @property
    def done_marker(self) -> Path:
        return self.path.with_name(f"{Path(self.name).stem}.done.json")

    @property
    def backing_name(self) -> str | None:
        return f"../{Path(self.parent['folder']).name}/{self.parent['file']}" if self.parent is not None else None


def copy_disk(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. A disk that was finished by an earlier try is not copied again. A disk that was not is begun again."""
    copy = _asked(arguments)
    with in_repository(copy.done_marker, "reading"):
        if copy.done_marker.exists():
            return dict(json.loads(copy.done_marker.read_text()))
        copy.path.unlink(missing_ok=True)
    result = _copied(copy, report)
    with in_repository(copy.done_marker, "writing"):
        write_whole(copy.done_marker, json.dumps(result).encode())
    return result


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
        is_compressed=bool(arguments.get("compress")) and not arguments.get("encrypted"),
        is_encrypted=bool(arguments.get("encrypted")),
    )


def _copied(copy: Copy, report: Report) -> dict[str, Any]:
    source = source_disk.read(copy.file, copy.format)
    try:
        with NbdServer(source.image(), connections=READERS, report=report, bitmap=copy.bitmap) as reader:
            return _into_target(copy, source, reader, report)
    except ServerFailed as failed:
        if failed.image.path == copy.file:
            raise source_disk.unreadable(copy.file, failed.reason) from failed
        raise RepositoryRefused(path=failed.image.path, what="opening", reason=failed.reason) from failed
    except ReadFailed as failed:
        raise source_disk.unreadable(copy.file, failed.reason) from failed


def _into_target(copy: Copy, source: Source, reader: NbdServer, report: Report) -> dict[str, Any]:
    blocks_path = copy.path.with_name(copy.blocks_file)
    digests, older = Digests(copy.virtual_size), _parents_digests(copy)
    with NbdServer(_new_image(copy, report), connections=READERS, report=report, is_writable=True) as writer:
        handles = reader.connect([extents.ALLOCATION, *([extents.bitmap_context(copy.bitmap)] if copy.bitmap else [])])
        if older is None:
            wanted = extents.rounded(extents.data(handles[0], report), CLUSTER_BYTES, copy.virtual_size)
        elif copy.bitmap is not None:
            digests.take(older)
            wanted = _changed(copy, source_disk.dirty_extents(source, copy.bitmap, handles[0], report), older)
        else:
            wanted = _not_zeroes(copy, extents.data(handles[0], report), older)
        writes = _Writes(ServedTarget(writer, copy.path, of_repository), digests, older)
        total = extents.bytes_of_blocks(wanted, copy.virtual_size)
        read_blocks(handles, extents.blocks(wanted, copy.virtual_size), writes.take, Tally(report, total))
        writes.target.finish()
    with in_repository(blocks_path, "writing"):
        write_whole(blocks_path, digests.as_bytes())
        stored_bytes = copy.path.stat().st_size
    return {
        "stored_bytes": stored_bytes,
        "copied_bytes": writes.copied_bytes,
        "content": digests.content(),
        "blocks_file": copy.blocks_file,
        "changed_blocks": writes.changed_blocks,
    }


def _changed(copy: Copy, dirty: list[Extent], older: Digests) -> list[Extent]:
    """What was written since the parent, and the part by which the disk has grown: no digest is known of that."""
    grown = older.unknown_to_size(copy.virtual_size)
    return extents.union([extents.rounded(dirty, CLUSTER_BYTES, copy.virtual_size), grown])


def _not_zeroes(copy: Copy, data: list[Extent], older: Digests) -> list[Extent]:
    """Everything, without the blocks that are zeroes now and were zeroes in the parent."""
    were = [(block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, copy.virtual_size)) for block in older.not_zeroes()]
    return extents.union([extents.rounded(data, BLOCK_BYTES, copy.virtual_size), [it for it in were if it[0] < it[1]]])


def _parents_digests(copy: Copy) -> Digests | None:
    if copy.parent is None:
        return None
    image = stored_chain.chain(copy.repository, copy.parent["folder"], copy.parent["file"])[0]
    return stored_digests(copy.repository, copy.parent["folder"], copy.parent["blocks_file"], image.header.virtual_size)


def _new_image(copy: Copy, report: Report) -> Image:
    """The empty image that is written, above the images of the parent."""
    with in_repository(copy.path, "making"):
        os.close(os.open(copy.path, _NEW_FILE, 0o600))
    try:
        images.create(
            copy.path,
            copy.virtual_size,
            backing_name=copy.backing_name,
            is_compressed=copy.is_compressed,
            encrypted_by=report if copy.is_encrypted else None,
        )
    except images.QemuImgFailed as failed:
        raise refused_by_qemu(copy.path, failed.reason) from failed
    below: Image | str = images.ALONE
    if copy.parent is not None:
        parents = stored_chain.chain(copy.repository, copy.parent["folder"], copy.parent["file"])
        below = stored_chain.as_image(parents, is_encrypted=copy.is_encrypted)
    return Image(str(copy.path), "qcow2", backing=below, is_encrypted=copy.is_encrypted, is_compressing=copy.is_compressed)


def refused_by_qemu(path: Path, reason: str) -> RepositoryRefused:
    return RepositoryRefused(path=str(path), what="making", reason=reason)


class _Writes:
    """Takes the blocks of the source: notes their digests and writes what the target does not show yet. For several threads."""

    def __init__(self, target: Target, digests: Digests, older: Digests | None) -> None:
        self.target, self._digests, self._older = target, digests, older
        self._lock = threading.Lock()
        self.copied_bytes = self.changed_blocks = 0

    def take(self, index: int, block: Block, content: bytearray) -> None:
        its = digest(content)
        self._digests[block.number] = its
        if self._older is not None and self._older.of_block(block.number, block.length) == its:
            return
        written = 0
        view = memoryview(content)
        for start, end, is_zero in runs(content, block):
            if not is_zero:
                self.target.write(index, start, view[start - block.start : end - block.start])
                written += end - start
            elif self._older is not None:
                # The parent may have other data there.
                self.target.zero(index, start, end - start)
        with self._lock:
            self.copied_bytes += written
            self.changed_blocks += 1


def runs(content: bytearray, block: Block) -> Iterable[tuple[int, int, bool]]:
    """The pieces of the block as runs of clusters that are zeroes, and runs that are not: first byte, byte after the last, zeroes."""
    zeroes = _ZEROES
    for start, end in block.pieces:
        begun, was_zero = start, None
        position = start
        while position < end:
            stop = min(position + CLUSTER_BYTES, end)
            is_zero = content.startswith(zeroes[: stop - position], position - block.start)
            if was_zero is not None and is_zero != was_zero:
                yield begun, position, was_zero
                begun = position
            was_zero, position = is_zero, stop
        if was_zero is not None:
            yield begun, end, was_zero


_ZEROES = bytes(CLUSTER_BYTES)
