"""The manifest of a point after points below it were merged into it. What its guest sees is what it was."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.repository import DiskLevel

MERGED = "the points below it were merged into it"
"""Why a disk is full that was copied as an increment."""


@dataclass(frozen=True)
class JoinedDisk:
    """What was written of one disk. `base_id`, `base_folder`: the point on which the new image stands. None: it stands alone."""

    target: str
    copied_bytes: int
    base_id: str | None
    base_folder: str | None

    def of(self, disk: DiskOfPoint) -> DiskOfPoint:
        moved = replace(disk, copied_bytes=self.copied_bytes, parent=self.base_id, parent_folder=self.base_folder)
        return moved if self.base_id is not None else replace(moved, level=DiskLevel.full, reason=MERGED)


@dataclass(frozen=True)
class Merge:
    """`points`: the ids of the points whose clusters moved. `replaces`: the digest of the manifest before."""

    at: str
    job_id: str
    points: Sequence[str]
    replaces: str

    def as_document(self) -> dict[str, Any]:
        return {"at": self.at, "job_id": self.job_id, "points": list(self.points), "replaces": self.replaces}


def merged(before: Manifest, disks: Mapping[str, JoinedDisk], files: Sequence[StoredFile], merge: Merge, *, key_id: str) -> Manifest:
    """`disks`: by target, those whose images were joined. `files`: all files, as they were sealed now."""
    new = [disks[disk.target].of(disk) if disk.target in disks else disk for disk in before.disks]
    return replace(before, disks=new, files=tuple(files), key_id=key_id, merges=[*before.merges, merge.as_document()])


def changed_by_others(before: Manifest, files: Sequence[StoredFile], written: Collection[str]) -> list[str]:
    """Names of files that should be what they were, and are not. `written`: the names of the files that the merge wrote."""
    now = {file.name: file for file in files}
    return sorted(file.name for file in before.files if file.name not in written and now.get(file.name) != file)
