"""Tests a sealed point and all points from which it inherits: each stored byte, what the guest sees, the structure, the filesystems."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import ForeignEntry, PointDamaged, PointIncomplete, StillpointError
from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.repository import MANIFEST_FILE
from service.repository import extents, stored_chain
from service.repository.digests import Digests, digest
from service.repository.extents import Block
from service.repository.failures import in_repository
from service.repository.reading import Tally, read_blocks
from service.repository.report import Report
from service.repository.stored_chain import StoredImage, damaged
from service.repository.stored_disk import opened, stored_digests

_PIECE_BYTES = 1 << 20
"""Bytes of a file that are read at a time."""


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
    """The step. Faults of the point are its result. Raises only what hinders the look: an error of the storage, KeyUnusable."""
    repository, folder = arguments["path"], arguments["folder"]
    checks = arguments.get("checks", ["bytes"])
    result: dict[str, Any] = {}
    if "bytes" in checks:
        result["bytes"] = _bytes(repository, folder, report)
    return result


def point_chain(repository: str, folder: str, faults: Faults) -> list[PointOnDisk]:
    """The point and those it inherits from. What cannot be read is a fault."""
    points: dict[str, PointOnDisk] = {}
    waiting = [folder]
    while waiting:
        its_folder = waiting.pop()
        if its_folder in points:
            continue
        try:
            manifest = _manifest(repository, its_folder, of_point=folder)
        except (PointDamaged, PointIncomplete, ForeignEntry) as error:
            faults.add(its_folder, MANIFEST_FILE, error.detail)
            continue
        points[its_folder] = PointOnDisk(its_folder, manifest)
        waiting += [disk.parent_folder for disk in manifest.disks if disk.parent_folder is not None]
    return list(points.values())


def _manifest(repository: str, folder: str, *, of_point: str) -> Manifest:
    path = stored_chain.regular_file(repository, folder, MANIFEST_FILE, of_point=of_point)
    with in_repository(path, "reading", is_write=False):
        text = path.read_bytes()
    try:
        return Manifest.from_document(json.loads(text))
    except (ValueError, StillpointError) as error:
        raise damaged(folder, path, f"the manifest cannot be read: {error}") from error


def _bytes(repository: str, folder: str, report: Report) -> dict[str, Any]:
    faults = Faults()
    points = point_chain(repository, folder, faults)
    files = [(point, file) for point in points for file in point.manifest.files]
    disks = points[0].manifest.disks if points and points[0].folder == folder else ()
    stored = sum(file.bytes for _, file in files)
    tally = Tally(report, stored + sum(disk.virtual_size for disk in disks))
    for point, file in files:
        _check_file(repository, point.folder, file, faults, tally)
    if not faults.faults:
        for disk in disks:
            _check_content(repository, folder, disk, faults, tally)
    return {"ok": not faults.faults, "files": len(files), "bytes": stored, "faults": faults.faults}


def _check_file(repository: str, folder: str, file: StoredFile, faults: Faults, tally: Tally) -> None:
    try:
        path = stored_chain.regular_file(repository, folder, file.name)
    except (PointIncomplete, ForeignEntry) as error:
        faults.add(folder, file.name, "the file is missing" if isinstance(error, PointIncomplete) else error.detail)
        return
    with in_repository(path, "reading", is_write=False):
        size = path.stat().st_size
        if size != file.bytes:
            faults.add(folder, file.name, f"it has {size} bytes, and {file.bytes} bytes were sealed")
        elif _sha256(path, tally) != file.sha256:
            faults.add(folder, file.name, "its bytes are not those that were sealed")


def _sha256(path: Path, tally: Tally) -> str:
    hashed, piece = hashlib.sha256(), bytearray(_PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            tally.report.wait_for_pace(count)
            hashed.update(memoryview(piece)[:count])
            tally.add(count)
    return hashed.hexdigest()


def _check_content(repository: str, folder: str, disk: DiskOfPoint, faults: Faults, tally: Tally) -> None:
    try:
        chain = stored_chain.chain(repository, folder, disk.file)
        expected = stored_digests(repository, folder, disk.blocks_file, disk.virtual_size)
        if expected.content() != disk.content:
            faults.add(folder, disk.blocks_file, "its digests are not those of the sealed content")
            return
        differing = differing_blocks(chain, expected, tally, is_encrypted=disk.is_encrypted)
    except (PointDamaged, PointIncomplete, ForeignEntry) as error:
        faults.add(folder, disk.file, error.detail)
        return
    if differing:
        faults.add(folder, disk.file, f"{len(differing)} blocks are not what the guest saw, the first is block {differing[0]}")


def differing_blocks(chain: Sequence[StoredImage], expected: Digests, tally: Tally, *, is_encrypted: bool) -> list[int]:
    """The blocks that the images show otherwise than `expected`. Raises PointDamaged, KeyUnusable."""
    size = expected.size
    shown = Digests(size)
    with opened(chain, size, tally.report, is_encrypted=is_encrypted) as disk:

        def note(_index: int, block: Block, content: bytearray) -> None:
            shown[block.number] = digest(content)

        tally.add(size - extents.bytes_of_blocks(disk.data, size))
        read_blocks(disk.readers, extents.blocks(disk.data, size), note, tally)
    return shown.differing(expected)
