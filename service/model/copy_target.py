"""Where a copy of a repository is: a folder, a bucket that speaks S3, or anything that rclone reaches. Plain values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self

from service.errors import CopyTargetInvalid

REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*:[^\x00-\x1f\x7f]*")
"""A remote of the configuration, and a path there. Neither `:backend,option=value:` nor `remote,option=value:`: an option of rclone can
name a program, and the caller of the API must not start programs."""
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{1,61}[A-Za-z0-9]")
ENDPOINT = re.compile(r"https?://[^\s/?#@]+/?")
FOLDER = re.compile(r"/[^\x00-\x1f\x7f]+")
PREFIX = re.compile(r"[^\x00-\x1f\x7f]*")


class CopyKind(StrEnum):
    folder = "folder"
    s3 = "s3"
    rclone = "rclone"


class LockMode(StrEnum):
    """What S3 calls the two modes of its object lock."""

    compliance = "compliance"
    """Nobody can take the lock away before its time."""
    governance = "governance"
    """Who has the right to bypass it can."""


@dataclass(frozen=True)
class FolderTarget:
    kind: ClassVar[CopyKind] = CopyKind.folder
    path: str

    def __str__(self) -> str:
        return self.path

    def as_document(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "path": self.path}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(_text(document, "path", FOLDER, "an absolute path").rstrip("/") or "/")


@dataclass(frozen=True)
class S3Target:
    """`prefix`: without slashes at its ends. `endpoint` None: that of Amazon. `region` None: as the server's own configuration says."""

    kind: ClassVar[CopyKind] = CopyKind.s3
    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        place = "/".join(part for part in (self.bucket, self.prefix) if part)
        return f"s3://{place} at {self.endpoint}" if self.endpoint else f"s3://{place}"

    def as_document(self) -> dict[str, Any]:
        return {"kind": self.kind.value, **vars(self)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        endpoint, region = document.get("endpoint"), document.get("region")
        return cls(
            bucket=_text(document, "bucket", BUCKET, "the name of a bucket"),
            prefix=_text(document, "prefix", PREFIX, "text without control characters", "").strip("/"),
            endpoint=_text(document, "endpoint", ENDPOINT, "http:// or https://, a host and a port") if endpoint is not None else None,
            region=_text(document, "region", re.compile(r"[a-z0-9-]{1,64}"), "the name of a region") if region is not None else None,
        )


@dataclass(frozen=True)
class RcloneTarget:
    """`remote`: `name:path`, where the name is one of the configuration that the key of the copy names."""

    kind: ClassVar[CopyKind] = CopyKind.rclone
    remote: str

    def __str__(self) -> str:
        return self.remote

    def as_document(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "remote": self.remote}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(_text(document, "remote", REMOTE, "REMOTE:PATH, with a remote that the configuration names, and without options"))


CopyTarget = FolderTarget | S3Target | RcloneTarget
_FORMS: Mapping[str, type[FolderTarget] | type[S3Target] | type[RcloneTarget]] = {
    form.kind.value: form for form in (FolderTarget, S3Target, RcloneTarget)
}


def target_of(document: Mapping[str, Any]) -> CopyTarget:
    """Raises CopyTargetInvalid."""
    form = _FORMS.get(str(document.get("kind")))
    if form is None:
        raise CopyTargetInvalid(field="kind", value=document.get("kind"), allowed=", ".join(CopyKind))
    strange = sorted(set(document) - {"kind", *form.__dataclass_fields__})
    if strange:
        raise CopyTargetInvalid(field=strange[0], value=document[strange[0]], allowed=f"nothing, for a copy of kind {form.kind.value}")
    return form.from_document(document)


def _text(document: Mapping[str, Any], field: str, form: re.Pattern[str], allowed: str, default: str | None = None) -> str:
    value = document.get(field)
    if value is None:
        value = default
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise CopyTargetInvalid(field=field, value=value, allowed=allowed)
    return value
