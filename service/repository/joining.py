"""Writes what several images of a chain hold into one new image, above the image on which they stand.

The guest sees the same before and after, block by block, by the digests of the sealed point. The images that are read stay as they are.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import CopyDiffers, PointDamaged, RepositoryFull, RepositoryRefused
from service.repository import extents, failures, images, places, stored_chain
from service.repository.copying import MAX_MARKER_BYTES, Copy, Plan, Writes, target_of
from service.repository.digests import Digests, digest
from service.repository.extents import CLUSTER_BYTES, Block, Extent
from service.repository.image_key import is_about_the_key, wrong_key
from service.repository.images import Image, qemu_img_lines
from service.repository.nbd_server import ServerFailed
from service.repository.qcow2_file import Layout
from service.repository.reading import Opened, Tally, read_blocks
from service.repository.report import Report
from service.repository.stored_chain import StoredImage, damaged
from service.repository.stored_disk import opened, stored_digests
from service.repository.structure import structure_of
from service.repository.verifying import stored_manifest

MAX_LUKS_BYTES = 4 << 20
"""Bytes of the key material in an encrypted image, at the most."""


@dataclass(frozen=True)
class _Join:
    """`chain`: the images of one disk of the point. The first `count` of them become one image."""

    repository: str
    folder: str
    file: str
    size: int
    expected: Digests
    chain: Sequence[StoredImage]
    count: int
    is_encrypted: bool
    is_compressed: bool

    @property
    def joined(self) -> Sequence[StoredImage]:
        return self.chain[: self.count]

    @property
    def rest(self) -> Sequence[StoredImage]:
        return self.chain[self.count :]

    def older(self) -> Digests:
        """What the image below the new one shows. Zeroes if there is none."""
        if not self.rest:
            return Digests(0)
        below = self.rest[0]
        manifest = stored_manifest(self.repository, below.folder, of_point=self.folder)
        disk = next((disk for disk in manifest.disks if disk.file == below.file), None)
        if disk is None:
            raise damaged(below.folder, below.path, "the manifest does not name it")
        return stored_digests(self.repository, below.folder, disk.blocks_file, disk.virtual_size)


def measure_merge(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step: the bytes that the new images of the disks take at the most. `joins`: whether a disk stands on what is merged at all."""
    needed, joins = 0, {}
    for asked in arguments["disks"]:
        join = _asked({**arguments, **asked})
        joins[asked["file"]] = join.count > 1
        if join.count > 1:
            with opened(join.chain, join.size, report, is_encrypted=join.is_encrypted) as disk:
                needed += _needed_bytes(join, _work(join, disk, report).plan)
    return {"needed_bytes": needed, "joins": joins}


def merge_disk(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step: the new image and its digests, in the partial folder. A disk that an earlier try has finished is not written again.

    `going`: the folders of the points whose clusters move up. Returns also the folders that were joined, and the point below.
    Raises PointDamaged if the guest would see anything else than what was sealed; RepositoryFull, KeyUnusable and others.
    """
    join = _asked(arguments)
    below = join.rest[0] if join.rest else None
    copy = _copy(join, arguments["partial"])
    with places.opened_folder(copy.repository, copy.folder) as folder:
        if (result := _finished_before(copy, folder)) is not None:
            return result
        with failures.in_repository(copy.path, "removing"), suppress(FileNotFoundError):
            os.unlink(copy.name, dir_fd=folder)
    result = {
        **_written(join, copy, report),
        "blocks_file": copy.blocks_file,
        "joined": [image.folder for image in join.joined[1:]],
        "base_folder": below.folder if below is not None else None,
    }
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


def _asked(arguments: dict[str, Any]) -> _Join:
    repository, folder, file, size = arguments["path"], arguments["folder"], arguments["file"], arguments["virtual_size"]
    chain = stored_chain.chain(repository, folder, file)
    expected = stored_digests(repository, folder, arguments["blocks_file"], size)
    if expected.content() != arguments["content"]:
        raise damaged(folder, Path(repository, folder, arguments["blocks_file"]), "its digests are not those of the sealed content")
    going = frozenset(arguments["going"])
    count = 1
    while count < len(chain) and chain[count].folder in going:
        count += 1
    is_encrypted = bool(arguments["encrypted"])
    is_compressed = bool(arguments["compress"]) and not is_encrypted and size % CLUSTER_BYTES == 0
    return _Join(repository, folder, file, size, expected, chain, count, is_encrypted, is_compressed)


def _copy(join: _Join, partial: str) -> Copy:
    parent = {"folder": join.rest[0].folder, "file": join.rest[0].file} if join.rest else None
    return Copy(
        repository=join.repository,
        folder=partial,
        name=join.file,
        file=str(join.chain[0].path),
        format="qcow2",
        virtual_size=join.size,
        parent=parent,
        is_compressed=join.is_compressed,
        is_encrypted=join.is_encrypted,
    )


# --- what is written ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """`wanted`: every cluster that one of the joined images holds, and what the image below would show otherwise than the point does."""

    wanted: list[Extent]
    plan: Plan


def _work(join: _Join, disk: Opened, report: Report) -> _Work:
    """The digests of all other blocks must be those of the image below. Raises PointDamaged."""
    size, older = join.size, join.older()
    wanted = extents.union([extents.rounded(_held(join, report), CLUSTER_BYTES, size), _shown_wrongly(join, older)])
    data = extents.rounded(disk.data, CLUSTER_BYTES, size)
    zeroes = extents.without(wanted, data)
    touched = {block.number for block in extents.blocks(wanted, size)}
    strange = [block for block in join.expected.not_those_of(older) if block not in touched]
    if strange:
        top = join.chain[0]
        raise damaged(top.folder, top.path, f"no image holds block {strange[0]}, and the image below shows it otherwise")
    digests = Digests(size)
    digests.take(join.expected)
    hidden = [(start, min(end, older.size)) for start, end in zeroes if start < older.size]
    return _Work(wanted, Plan(extents.without(wanted, zeroes), extents.rounded(hidden, CLUSTER_BYTES, size), digests, older))


def _shown_wrongly(join: _Join, older: Digests) -> list[Extent]:
    """Where the disk was smaller once than the image below, its later end reads as zeroes. Also a last block of another length."""
    if not join.rest:
        return []
    smallest = min(image.header.virtual_size for image in join.joined)
    ends = [(smallest // CLUSTER_BYTES * CLUSTER_BYTES, join.size)] if smallest < join.size and smallest < older.size else []
    return extents.union([ends, older.unknown_to_size(join.size)])


def _held(join: _Join, report: Report) -> Iterator[Extent]:
    """What the joined images hold themselves, zeroes too."""
    below: Image | str = images.ALONE
    for image in reversed(join.joined):
        below = Image(str(image.path), "qcow2", backing=below, is_encrypted=join.is_encrypted)
    assert isinstance(below, Image)
    try:
        for line in qemu_img_lines("map", ["--output=json", below.name()], report):
            if text := line.strip().strip("[],"):
                entry = json.loads(text)
                if entry["present"]:
                    yield entry["start"], entry["start"] + entry["length"]
                report.alive()
    except images.QemuImgFailed as failed:
        if is_about_the_key(failed.reason):
            raise wrong_key(str(join.chain[0].path)) from failed
        raise damaged(join.folder, join.chain[0].path, f"QEMU cannot read it: {failed.reason}") from failed


def _needed_bytes(join: _Join, plan: Plan) -> int:
    """Zeroes inside the data become holes, and what is compressed stays so: it may be less."""
    layout = Layout(join.size, plan.data, plan.zeroes, None)
    stored = sum(image.path.stat().st_size for image in join.joined)
    image = min(layout.file_bytes, stored) if join.is_compressed else layout.file_bytes
    return image + len(plan.digests.as_bytes()) + (MAX_LUKS_BYTES if join.is_encrypted else 0)


def _written(join: _Join, copy: Copy, report: Report) -> dict[str, Any]:
    """Write the image, then read back every block that the joined images hold."""
    with opened(join.chain, join.size, report, is_encrypted=join.is_encrypted) as disk:
        work = _work(join, disk, report)
        _must_fit(join, work.plan, copy)
        tally = Tally(report, 2 * extents.bytes_of_blocks(work.wanted, join.size))
        copied_bytes = _write(join, copy, disk, work.plan, tally)
    if differing := work.plan.digests.differing(join.expected):
        reason = f"{len(differing)} blocks are not what the guest saw, the first is block {differing[0]}"
        raise damaged(join.folder, join.chain[0].path, reason)
    _compare(join, copy, work.wanted, tally)
    with places.opened_folder(copy.repository, copy.folder) as folder:
        blocks = copy.path.with_name(copy.blocks_file)
        places.write_bytes(folder, copy.blocks_file, blocks, join.expected.as_bytes())
        stored_bytes = os.lstat(copy.name, dir_fd=folder).st_size
    return {"stored_bytes": stored_bytes, "copied_bytes": copied_bytes, "content": work.plan.digests.content()}


def _write(join: _Join, copy: Copy, disk: Opened, plan: Plan, tally: Tally) -> int:
    try:
        with target_of(copy, plan, tally.report) as target:
            writes = Writes(target, plan)
            read_blocks(disk.readers, extents.blocks(plan.data, join.size, plan.zeroes), writes.take, tally, target.give_up)
            target.finish(tally.report)
            return writes.copied_bytes
    except ServerFailed as failed:
        # Here, as outside it would be taken for a fault of the chain that is read.
        if is_about_the_key(failed.reason):
            raise wrong_key(str(copy.path)) from failed
        raise RepositoryRefused(path=failed.image.path, what="opening", reason=failed.reason) from failed


def _must_fit(join: _Join, plan: Plan, copy: Copy) -> None:
    needed, free = _needed_bytes(join, plan), failures.free_bytes(copy.path)
    if free is not None and free < needed:
        raise RepositoryFull(path=join.repository, needed_bytes=needed, free_bytes=free)


def _compare(join: _Join, copy: Copy, wanted: Sequence[Extent], tally: Tally) -> None:
    """What the guest sees through the new image. Raises CopyDiffers, RepositoryRefused."""
    chain = stored_chain.chain(copy.repository, copy.folder, copy.name)
    reason = structure_of(chain[0], tally.report, is_encrypted=join.is_encrypted)["reason"]
    if [image.path for image in chain[1:]] != [image.path for image in join.rest]:
        reason = "it does not stand on the image on which it should stand"
    if reason is not None:
        raise RepositoryRefused(path=str(copy.path), what="writing", reason=reason)
    shown = Digests(join.size)
    shown.take(join.expected)

    def note(_index: int, block: Block, content: bytearray) -> None:
        shown[block.number] = digest(content)

    try:
        with opened(chain, join.size, tally.report, is_encrypted=join.is_encrypted) as disk:
            read_blocks(disk.readers, extents.blocks(wanted, join.size), note, tally)
    except PointDamaged as error:
        # The point itself was read before: what is wrong is what was written.
        raise RepositoryRefused(path=str(copy.path), what="reading back", reason=error.facts["reason"]) from error
    if differing := shown.differing(join.expected):
        raise CopyDiffers(path=str(copy.path), disk=Path(copy.name).stem, blocks=len(differing), block=differing[0])
