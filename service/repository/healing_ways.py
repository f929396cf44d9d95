"""The ways that lead to the sealed bytes of a damaged file, from the cheapest to the dearest. Each fills a draft, and the checksum of the
draft tells whether that was right."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nbd

from service.errors import ForeignEntry, PointDamaged, PointIncomplete
from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.repository import MANIFEST_FILE, SIGNATURE_FILE
from service.repository import durable, failures, points, stored_chain
from service.repository.block_search import LiveDisk, StoredDisk
from service.repository.digests import Digests, digest
from service.repository.extents import blocks
from service.repository.image_rebuilding import Rebuilding, rebuild
from service.repository.nbd_server import ServerFailed
from service.repository.one_bit import MAX_BYTES, with_one_bit_right
from service.repository.reading import ReadFailed, Tally, read_blocks
from service.repository.report import Report
from service.repository.stored_disk import opened, stored_digests
from service.repository.verifying import stored_manifest

DRAFT = "healed"
"""The name of the new file, in the folder where it is made."""
BAD = (PointDamaged, PointIncomplete, ForeignEntry)

Sources = Sequence[dict[str, Any]]


class NotHealed(Exception):
    """`reason`: why one way, or all of them, did not lead to the sealed bytes."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass
class DamagedFile:
    """`arguments`: those of the step."""

    arguments: dict[str, Any]
    report: Report
    _why_not: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return str(self.arguments["path"])

    @property
    def folder(self) -> str:
        return str(self.arguments["folder"])

    @property
    def name(self) -> str:
        return str(self.arguments["file"])

    @property
    def partial(self) -> str:
        return str(self.arguments["partial"])

    @property
    def shown(self) -> Path:
        return Path(self.path, self.folder, self.name)

    @cached_property
    def manifest(self) -> Manifest:
        """Raises NotHealed."""
        try:
            return stored_manifest(self.path, self.folder, of_point=self.folder)
        except BAD as error:
            raise NotHealed(f"what it should be is not known: {error.detail}") from error

    @cached_property
    def sealed(self) -> StoredFile:
        """What the file should be. Its size is -1 where it is not known. Raises NotHealed."""
        if self.arguments.get("text") is not None:
            content = str(self.arguments["text"]).encode()
            return StoredFile(self.name, len(content), hashlib.sha256(content).hexdigest())
        if self.name == MANIFEST_FILE and self.arguments.get("sha256"):
            return StoredFile(self.name, -1, str(self.arguments["sha256"]))
        known = next((file for file in self.manifest.files if file.name == self.name), None)
        if known is None or self.name in (MANIFEST_FILE, SIGNATURE_FILE):
            raise NotHealed("what it should be is not known")
        return known

    def draft_path(self) -> Path:
        return Path(self.path, self.partial, DRAFT)

    def _with_content(self, draft: int, content: bytes, source: dict[str, Any]) -> Sources | None:
        with failures.in_repository(self.draft_path(), "writing"):
            os.ftruncate(draft, 0)
            rest, position = memoryview(content), 0
            while rest:
                count = os.pwrite(draft, rest, position)
                rest, position = rest[count:], position + count
        return [source] if self.is_right(draft) else None

    def is_right(self, descriptor: int) -> bool:
        with failures.in_repository(self.shown, "reading", is_write=False):
            sha256, count = durable.sha256_of(descriptor, lambda _: self.report.alive())
        return sha256 == self.sealed.sha256 and self.sealed.bytes in (count, -1)

    def is_right_in_place(self) -> bool:
        try:
            descriptor = self._opened_damaged()
        except BAD:
            return False
        try:
            return self.is_right(descriptor)
        finally:
            os.close(descriptor)

    def must_be_read_back(self, descriptor: int) -> None:
        """From the storage, and not from what the kernel still holds. Raises NotHealed."""
        with failures.in_repository(self.draft_path(), "syncing"):
            durable.sync(descriptor, self.report)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if not self.is_right(descriptor):
            raise NotHealed("the storage does not keep what is written to it")

    def made_again(self, draft: int) -> Sources:
        """Fill the draft. Raises NotHealed, if no way leads to the sealed bytes."""
        for way in (self._as_known, self._copied, self._with_one_bit, self._from_the_image, self._rebuilt):
            try:
                sources = way(draft)
            except NotHealed as failed:
                self._why_not.append(failed.reason)
            except BAD as error:
                self._why_not.append(error.detail)
            except (ServerFailed, ReadFailed, nbd.Error) as failed:
                self._why_not.append(f"QEMU cannot read what is left of it: {getattr(failed, 'reason', failed)}")
            else:
                if sources is not None:
                    return sources
            self.report.alive()
        raise NotHealed(self._why_not[-1] if self._why_not else "no good copy of it was found in the repository")

    def _as_known(self, draft: int) -> Sources | None:
        text = self.arguments.get("text")
        return self._with_content(draft, str(text).encode(), {"source": "known"}) if text is not None else None

    def _copied(self, draft: int) -> Sources | None:
        """Another point may hold the same file, such as the definition of the domain."""
        for folder, manifest in self._others:
            for file in manifest.files:
                if (file.sha256, file.bytes) == (self.sealed.sha256, self.sealed.bytes) and self._copy_of(draft, folder, file.name):
                    return [{"source": "point", "recovery_point": manifest.point_id, "file": f"{folder}/{file.name}"}]
        return None

    def _copy_of(self, draft: int, folder: str, name: str) -> bool:
        try:
            path = stored_chain.regular_file(self.path, folder, name)
        except BAD:
            return False
        with failures.in_repository(path, "copying"), path.open("rb") as file:
            os.ftruncate(draft, 0)
            position = 0
            while piece := os.pread(file.fileno(), durable.READ_BYTES, position):
                os.pwrite(draft, piece, position)
                position += len(piece)
                self.report.progress(position, self.sealed.bytes)
                self.report.wait_for_pace(len(piece))
        return self.is_right(draft)

    def _with_one_bit(self, draft: int) -> Sources | None:
        """A small file in which one bit has changed."""
        if self.sealed.bytes > MAX_BYTES:
            return None
        try:
            path = stored_chain.regular_file(self.path, self.folder, self.name)
            with failures.in_repository(path, "reading", is_write=False):
                content = path.read_bytes()
        except BAD:
            return None
        right = with_one_bit_right(content, self.sealed.sha256, self.report.alive)
        return self._with_content(draft, right, {"source": "itself", "bits": 1}) if right is not None else None

    def _from_the_image(self, draft: int) -> Sources | None:
        """The digests of a disk are computed from its image again."""
        disk = next((disk for disk in self._disks() if disk.blocks_file == self.name), None)
        if disk is None:
            return None
        digests = Digests(disk.virtual_size)
        chain = stored_chain.chain(self.path, self.folder, disk.file)
        with opened(chain, disk.virtual_size, self.report, is_encrypted=disk.is_encrypted) as image:

            def note(_index: int, block: Any, content: bytearray) -> None:
                digests[block.number] = digest(content)

            read_blocks(image.readers, blocks(image.data, disk.virtual_size), note, Tally(self.report, disk.virtual_size))
        return self._with_content(draft, digests.as_bytes(), {"source": "image", "file": f"{self.folder}/{disk.file}"})

    def _rebuilt(self, draft: int) -> Sources | None:
        disk = next((disk for disk in self._disks() if disk.file == self.name), None)
        if disk is None:
            return None
        digests = stored_digests(self.path, self.folder, disk.blocks_file, disk.virtual_size)
        if digests.content() != disk.content:
            raise NotHealed("its digests are damaged as well, so its bad blocks are not known")
        damaged = self._opened_damaged()
        try:
            asked = Rebuilding(
                self.path,
                f"{self.partial}/{DRAFT}",
                disk,
                self.sealed,
                self._backing_name(disk),
                digests,
                self._stored_disks(disk),
                [LiveDisk(**live) for live in (self.arguments.get("live") or {}).get(disk.target, ())],
                self.report,
                lambda: self.is_right(draft),
            )
            result = rebuild(asked, damaged, draft)
        finally:
            os.close(damaged)
        if result.is_right:
            return result.sources or [{"source": "itself", "what": "tables"}]
        if result.missing:
            raise NotHealed(
                f"no good copy was found of {len(result.missing)} of its blocks, the first of which is block {result.missing[0]}"
            )
        raise NotHealed("it cannot be told how it was laid out" if not result.has_layout else "what it held beside the blocks is not known")

    def _opened_damaged(self) -> int:
        path = stored_chain.regular_file(self.path, self.folder, self.name)
        with failures.in_repository(path, "reading", is_write=False):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _backing_name(self, disk: DiskOfPoint) -> str | None:
        """As the copy wrote it."""
        if disk.parent_folder is None:
            return None
        below = disk.file
        with suppress(*BAD):
            parent = stored_manifest(self.path, disk.parent_folder, of_point=self.folder)
            below = next((each.file for each in parent.disks if each.target == disk.target), below)
        return f"../{Path(disk.parent_folder).name}/{below}"

    def _disks(self) -> Sequence[DiskOfPoint]:
        return () if self.name == MANIFEST_FILE else self.manifest.disks

    @cached_property
    def _others(self) -> list[tuple[str, Manifest]]:
        """All points of the repository that can be read: first those of the same domain, the newest of them first."""
        readable = []
        for folder in points.folders(self.path):
            with suppress(FileNotFoundError, *BAD):
                readable.append((folder, stored_manifest(self.path, folder, of_point=folder)))
            self.report.alive()
        domain = Path(self.folder).parent
        return sorted(sorted(readable, key=lambda one: one[0], reverse=True), key=lambda one: Path(one[0]).parent != domain)

    def _stored_disks(self, damaged: DiskOfPoint) -> list[StoredDisk]:
        """The damaged disk itself comes last: it may hold the same block at another place."""
        disks = [StoredDisk(folder, manifest, disk) for folder, manifest in self._others for disk in manifest.disks]
        return sorted(disks, key=lambda one: (one.folder, one.disk.file) == (self.folder, damaged.file))
