"""What a restore has begun: the part of a job's intent that only the kind `restore` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from service.errors import RecordUnreadable, VersionUnknown
from service.jobs.restore_tpm import TpmSwap
from service.model.file_identity import FileIdentity
from service.model.intent import Intent
from service.model.repository import RestoreMode

VERSION = 1


class Stage(StrEnum):
    again = "again"
    """Nothing is left of an earlier attempt, which may have told the domain to shut down: `was_running` tells whether it ran before."""
    write = "write"
    """New files are made. The domain and its disks are as before."""
    stop = "stop"
    """Every new file is complete. The domain is asked to shut down, and its definition is as before."""
    define = "define"
    """The domain is off, and its definition may be the old one or the new one. From here on the restore is completed or taken back."""
    flatten = "flatten"
    """The domain has been started over the repository."""
    conclude = "conclude"
    """The domain is on its restored disks, which stand alone."""


@dataclass(frozen=True)
class NewFile:
    """`partial`: the name under which it is made. `made` None: it is not complete. `what`: the target of a disk, or `nvram`."""

    what: str
    path: str
    partial: str
    made: FileIdentity | None = None

    def as_document(self) -> dict[str, Any]:
        made = self.made.as_document() if self.made is not None else None
        return {"what": self.what, "path": self.path, "partial": self.partial, "made": made}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "NewFile":
        return cls(document["what"], document["path"], document["partial"], FileIdentity.from_document(document.get("made")))


@dataclass(frozen=True)
class RestoreIntent:
    """`images`: [folder, file] of each disk in the repository. `old_definition`: of a domain in place. `aside`: its checkpoints."""

    stage: Stage
    mode: RestoreMode
    repository_id: str
    point_id: str
    uuid: str
    name: str
    files: Sequence[NewFile] = ()
    images: Sequence[tuple[str, str]] = ()
    definition: str | None = None
    old_definition: str | None = None
    old_files: Sequence[str] = ()
    was_running: bool = False
    will_start: bool = False
    aside: Mapping[str, str] = field(default_factory=dict)
    tpm: TpmSwap | None = None
    #: Every byte of the point was read. False: an instant restore began with a proof on record, and reads the bytes after the start.
    is_verified: bool = True
    #: By target: who copies what the disk still reads from the repository, until that is seen to be written out (`restore_written_out`).
    copied_by: Mapping[str, str] = field(default_factory=dict)
    #: The domain was switched off so that its disks can be mended, and is started after that.
    starts_again: bool = False

    @property
    def targets(self) -> list[str]:
        return [file.what for file in self.files if file.what != NVRAM]

    def at(self, stage: Stage, **more: Any) -> "RestoreIntent":
        return replace(self, stage=stage, **more)

    def with_file(self, changed: NewFile) -> "RestoreIntent":
        return replace(self, files=tuple(changed if file.path == changed.path else file for file in self.files))

    def as_intent(self) -> Intent:
        plain = {name: value for name, value in vars(self).items() if name not in ("stage", "mode", "files", "images")}
        own = {
            "v": VERSION,
            "stage": self.stage.value,
            "mode": self.mode.value,
            **plain,
            "files": [file.as_document() for file in self.files],
            "images": [list(image) for image in self.images],
            "old_files": list(self.old_files),
            "aside": dict(self.aside),
            "copied_by": dict(self.copied_by),
            "tpm": self.tpm.as_document() if self.tpm is not None else None,
        }
        return Intent(own=own)

    @classmethod
    def of(cls, intent: Intent) -> "RestoreIntent | None":
        """None: nothing was begun. Raises VersionUnknown, RecordUnreadable."""
        document = intent.own
        if document is None:
            return None
        if document.get("v", VERSION) > VERSION:
            raise VersionUnknown(what="intent of a restore", version=document["v"], known=VERSION)
        try:
            known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
            return cls(
                **known
                | {
                    "stage": Stage(document["stage"]),
                    "mode": RestoreMode(document["mode"]),
                    "files": tuple(NewFile.from_document(file) for file in document["files"]),
                    "images": tuple((folder, file) for folder, file in document["images"]),
                    "old_files": tuple(document["old_files"]),
                    "tpm": TpmSwap.from_document(document.get("tpm")),
                }
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordUnreadable(what="intent of a restore", reason=f"{type(error).__name__}: {error}") from error


NVRAM = "nvram"
