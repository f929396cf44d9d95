"""What a backup has begun and how far it is: the job's own part of its intent. The next attempt continues from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from service.errors import RecordUnreadable, VersionUnknown
from service.model.backup_level import Decision
from service.model.intent import Intent
from service.model.repository import DiskLevel, point_folder

VERSION = 1


class Stage(StrEnum):
    taking = "taking"
    """The point may be taken, and is not judged. Such a point is not copied: the next attempt takes another."""
    transfer = "transfer"
    """The point is taken and judged, and its files are still. What is missing is the copy."""
    merge = "merge"
    """The point is sealed and on record. What is missing is that the overlays are merged back."""
    undo = "undo"
    """The copy was given up, and the overlays are being merged back. The files below are not a point in time any more."""


@dataclass(frozen=True)
class PlannedDisk:
    """`checkpoint`: the bitmap that begins with this point. `bitmap`: the one that tells what was written since the parent.

    `copied`: what the copy of the disk came to; None: the disk is not copied yet. `source_files`: before the point, the active one first.
    `still`: time and size of the active one just after the point, by which a later write is seen; None: a device.
    """

    target: str
    source_format: str
    virtual_size: int
    level: DiskLevel
    reason: str
    serial: str | None = None
    source_files: Sequence[str] = ()
    checkpoint: str | None = None
    bitmap: str | None = None
    parent_id: str | None = None
    parent_folder: str | None = None
    parent_file: str | None = None
    parent_blocks_file: str | None = None
    copied: Mapping[str, Any] | None = None
    still: Mapping[str, int] | None = None

    @property
    def file(self) -> str:
        return f"{self.target}.qcow2"

    @property
    def parent(self) -> dict[str, Any] | None:
        """As the step `copy_disk` takes it."""
        if self.parent_folder is None:
            return None
        return {"folder": self.parent_folder, "file": self.parent_file, "blocks_file": self.parent_blocks_file}

    def decided(self, decision: Decision) -> "PlannedDisk":
        parent = decision.parent
        return replace(
            self,
            level=decision.level,
            reason=decision.reason,
            bitmap=decision.bitmap,
            parent_id=decision.parent_id,
            parent_folder=decision.parent_folder,
            parent_file=parent.file if parent else None,
            parent_blocks_file=parent.blocks_file if parent else None,
        )

    def as_document(self) -> dict[str, Any]:
        return {**vars(self), "level": self.level.value, "source_files": list(self.source_files)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**known | {"level": DiskLevel(document["level"])})


@dataclass(frozen=True)
class Firmware:
    """What the domain keeps outside its disks, by path on the host: the variables of its firmware, and the files of its TPM."""

    nvram: str | None = None
    tpm: Sequence[str] = ()


@dataclass(frozen=True)
class BackupIntent:
    """`name`: of the point's folder. `definition`: the XML of the domain, with the files that its disks were on before the point.

    `fell_short`: the verdict and the required verdict of a point that is kept although its verdict does not satisfy the request.
    """

    stage: Stage
    point_id: str
    name: str
    repository_id: str
    domain_id: str
    disks: Sequence[PlannedDisk]
    definition: str
    left_out: Mapping[str, str]
    checkpoint: str | None = None
    firmware: Firmware = Firmware()
    #: When the files of `firmware` were copied aside (`service.jobs.backup_folder`).
    firmware_taken_at: str | None = None
    was_running: bool = True
    point_in_time_at: str | None = None
    fell_short: Mapping[str, str] | None = None
    #: Names of the files of firmware and definition that are in the repository by now.
    stored: Sequence[str] = ()
    partial: str | None = None
    #: The copy was given up while the point was published, and the repository has not said whether it is there.
    may_be_sealed: bool = False
    #: What the guest felt until now (`service.jobs.guest_watch`).
    impact: Mapping[str, Any] | None = None

    @property
    def folder(self) -> str:
        return point_folder(self.domain_id, self.name)

    def disk(self, target: str) -> PlannedDisk:
        return next(disk for disk in self.disks if disk.target == target)

    def with_disk(self, changed: PlannedDisk) -> Self:
        return replace(self, disks=[changed if disk.target == changed.target else disk for disk in self.disks])

    def as_document(self) -> dict[str, Any]:
        return {
            "v": VERSION,
            **vars(self),
            "stage": self.stage.value,
            "disks": [disk.as_document() for disk in self.disks],
            "left_out": dict(self.left_out),
            "firmware": {"nvram": self.firmware.nvram, "tpm": list(self.firmware.tpm)},
            "stored": list(self.stored),
        }

    @classmethod
    def of(cls, intent: Intent) -> "BackupIntent | None":
        """None: the job has not begun anything. Raises VersionUnknown, RecordUnreadable."""
        document = intent.own
        if document is None:
            return None
        if document.get("v", VERSION) > VERSION:
            raise VersionUnknown(what="intent of a backup", version=document["v"], known=VERSION)
        try:
            known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
            firmware = Firmware(document["firmware"]["nvram"], tuple(document["firmware"]["tpm"]))
            disks = [PlannedDisk.from_document(disk) for disk in document["disks"]]
            return cls(**known | {"stage": Stage(document["stage"]), "disks": disks, "firmware": firmware})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordUnreadable(what="intent of a backup", reason=f"{type(error).__name__}: {error}") from error
