"""Tests a sealed point and all points from which it inherits: each stored byte, what the guest sees, the structure, the filesystems."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import ForeignEntry, PointDamaged, PointIncomplete, StillpointError
from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.repository import MANIFEST_FILE
from service.repository import durable, extents, filesystem_readers, places, stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import Block
from service.repository.failures import in_repository
from service.repository.image_key import need_key
from service.repository.reading import Tally, read_blocks
from service.repository.report import Report
from service.repository.stamps import stamp_of
from service.repository.state_archive import archive_of
from service.repository.stored_chain import StoredImage, damaged
from service.repository.stored_disk import opened, stored_digests
from service.repository.stored_state import files_of
from service.repository.structure import structure_of

FILES_AT_A_TIME = 4
"""Stored files whose checksums are computed side by side. More wait."""


@dataclass
class Faults:
    """What is wrong with the point. An error of the storage is not a fault of the point: it ends the step."""

    faults: list[dict[str, Any]] = field(default_factory=list)

    def add(self, folder: str, file: str | None, reason: str) -> None:
        self.faults.append({"folder": folder, "file": file, "reason": reason})


@dataclass(frozen=True)
class PointOnDisk:
    folder: str
    manifest: Manifest


def verify_point(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. Faults of the point are its result. Raises only what hinders the look: an error of the storage, KeyUnusable.

    `checks`: any of `bytes`, `structure`, `filesystem`. For the first two: `ok`, `faults` (`folder`, `file`, `reason`).
    """
    repository, folder = arguments["path"], arguments["folder"]
    done = {"bytes": _bytes, "structure": _structure, "filesystem": _filesystems}
    return {check: done[check](repository, folder, report) for check in arguments.get("checks", ["bytes"])}


def point_chain(repository: str, folder: str, faults: Faults) -> list[PointOnDisk]:
    """The point and those it inherits from. What cannot be read is a fault."""
    points: dict[str, PointOnDisk] = {}
    waiting = [folder]
    while waiting:
        its_folder = waiting.pop()
        if its_folder in points:
            continue
        try:
            manifest = stored_manifest(repository, its_folder, of_point=folder)
        except (PointDamaged, PointIncomplete, ForeignEntry) as error:
            is_gone = isinstance(error, PointIncomplete) and error.facts["missing"] == its_folder
            faults.add(its_folder, None if is_gone else MANIFEST_FILE, error.facts.get("reason", "it is missing"))
            continue
        points[its_folder] = PointOnDisk(its_folder, manifest)
        waiting += [disk.parent_folder for disk in manifest.disks if disk.parent_folder is not None]
    return list(points.values())


def stored_manifest(repository: str, folder: str, *, of_point: str) -> Manifest:
    path = stored_chain.regular_file(repository, folder, MANIFEST_FILE, of_point=of_point)
    with in_repository(path, "reading", is_write=False):
        text = path.read_bytes()
    try:
        return Manifest.from_document(json.loads(text))
    except (ValueError, StillpointError) as error:
        raise damaged(folder, path, f"the manifest cannot be read: {error}") from error


def _bytes(repository: str, folder: str, report: Report) -> dict[str, Any]:
    """Every stored file of the point and of those below. Then what the guest sees, which needs the key of an encrypted point."""
    faults = Faults()
    points = point_chain(repository, folder, faults)
    # Before the first byte is read, so that what is written meanwhile has another stamp.
    stamps = _stamps(repository, points)
    files = [(point.folder, file) for point in points for file in point.manifest.files]
    disks = [disk for disk in _disks(points, folder) if report.key is not None or not disk.is_encrypted]
    stored = sum(file.bytes for _, file in files)
    tally = Tally(report, stored + sum(disk.virtual_size for disk in disks))
    with ThreadPoolExecutor(FILES_AT_A_TIME) as pool:
        reasons = pool.map(lambda one: _fault_of(repository, one[0], one[1], tally), files)
        for (its_folder, file), reason in zip(files, reasons, strict=True):
            if reason is not None:
                faults.add(its_folder, file.name, reason)
    read = stored
    if not faults.faults:
        for disk in disks:
            read += _check_content(repository, folder, disk, faults, tally)
        _check_state(repository, points, folder, faults, report)
    return {
        "ok": not faults.faults,
        "files": len(files),
        "bytes": stored,
        "read_bytes": read,
        "faults": faults.faults,
        "contents": len(disks),
        "stamps": stamps,
    }


def _stamps(repository: str, points: Sequence[PointOnDisk]) -> dict[str, str]:
    stamps = {}
    for point in points:
        with suppress(PointIncomplete, ForeignEntry):
            # The read finds what is missing or strange, and says so.
            stamps[point.folder] = stamp_of(repository, point.folder, point.manifest)
    return stamps


def _check_state(repository: str, points: Sequence[PointOnDisk], folder: str, faults: Faults, report: Report) -> None:
    """Whether the key opens the archive with the state, and all of its files are in it."""
    manifest = next((point.manifest for point in points if point.folder == folder), None)
    if manifest is None or report.key is None or (archive := archive_of(manifest)) is None:
        return
    try:
        files_of(repository, folder, manifest, report)
    except (PointDamaged, ForeignEntry) as error:
        faults.add(folder, archive, str(error.facts["reason"]))


def _disks(points: Sequence[PointOnDisk], folder: str) -> Sequence[DiskOfPoint]:
    return next((point.manifest.disks for point in points if point.folder == folder), ())


def _fault_of(repository: str, folder: str, file: StoredFile, tally: Tally) -> str | None:
    """What is wrong with a stored file. Raises an error of the storage."""
    *between, name = places.parts(f"{folder}/{file.name}")
    shown = Path(repository, folder, file.name)
    try:
        with places.opened_folder(repository, "/".join(between)) as opened_folder:
            descriptor = places.opened_file(opened_folder, name, shown)
    except FileNotFoundError:
        return "it is missing"
    except ForeignEntry as error:
        return str(error.facts["reason"])
    try:
        with in_repository(shown, "reading", is_write=False):
            size = os.fstat(descriptor).st_size
            if size != file.bytes:
                return f"it has {size} bytes, and {file.bytes} bytes were sealed"
            sha256, _ = durable.sha256_of(descriptor, tally.add_in_pace)
            return None if sha256 == file.sha256 else "its bytes are not those that were sealed"
    finally:
        os.close(descriptor)


def _structure(repository: str, folder: str, report: Report) -> dict[str, Any]:
    faults = Faults()
    leaks, images = 0, set[tuple[str, str]]()
    for disk in _disks(point_chain(repository, folder, faults), folder):
        need_key(disk.is_encrypted, report, str(Path(repository, folder, disk.file)))
        try:
            chain = stored_chain.chain(repository, folder, disk.file)
        except (PointDamaged, PointIncomplete, ForeignEntry) as error:
            faults.add(folder, _place(error, disk.file), error.detail)
            continue
        for image in chain:
            answer = structure_of(image, report, is_encrypted=disk.is_encrypted)
            leaks += answer["leaks"]
            images.add((image.folder, image.file))
            if answer["reason"] is not None:
                faults.add(image.folder, image.file, answer["reason"])
    return {"ok": not faults.faults, "images": len(images), "leaks": leaks, "faults": faults.faults}


def _filesystems(repository: str, folder: str, report: Report) -> dict[str, Any]:
    """By disk: what its filesystems say. Raises PointDamaged, PointIncomplete, KeyUnusable."""
    faults = Faults()
    states: dict[str, Any] = {}
    for disk in _disks(point_chain(repository, folder, faults), folder):
        chain = stored_chain.chain(repository, folder, disk.file)
        with opened(chain, disk.virtual_size, report, is_encrypted=disk.is_encrypted) as image:
            states[disk.target] = filesystem_readers.filesystems(image.bytes_at, disk.virtual_size)
            report.alive()
    if faults.faults:
        first = faults.faults[0]
        raise damaged(first["folder"], first["file"] or first["folder"], first["reason"])
    return states


def _check_content(repository: str, folder: str, disk: DiskOfPoint, faults: Faults, tally: Tally) -> int:
    """Returns the bytes that were read."""
    read = 0
    try:
        chain = stored_chain.chain(repository, folder, disk.file)
        expected = stored_digests(repository, folder, disk.blocks_file, disk.virtual_size)
        if expected.content() != disk.content:
            faults.add(folder, disk.blocks_file, "its digests are not those of the sealed content")
            return read
        differing, read = differing_blocks(chain, expected, tally, is_encrypted=disk.is_encrypted)
    except (PointDamaged, PointIncomplete, ForeignEntry) as error:
        faults.add(folder, _place(error, disk.file), error.detail)
        return read
    if differing:
        faults.add(folder, disk.file, f"{len(differing)} blocks are not what the guest saw, the first is block {differing[0]}")
    return read


def _place(error: StillpointError, file: str) -> str:
    """The fault may be in a point below: then its path says so."""
    return str(error.facts.get("path") or file)


def differing_blocks(chain: Sequence[StoredImage], expected: Digests, tally: Tally, *, is_encrypted: bool) -> tuple[list[int], int]:
    """The blocks that the images show otherwise than `expected`, and how many bytes were read. Raises PointDamaged, KeyUnusable."""
    size = expected.size
    shown = Digests(size)
    with opened(chain, size, tally.report, is_encrypted=is_encrypted) as disk:

        def note(_index: int, block: Block, content: bytearray) -> None:
            shown[block.number] = digest(content)

        read = extents.bytes_of_blocks(disk.data, size)
        tally.add(size - read)
        read_blocks(disk.readers, extents.blocks(disk.data, size), note, tally)
    return shown.differing(expected), read
