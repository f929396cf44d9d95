"""What a job is asked to do, kind by kind: typed, and read once when the job is claimed.

The document of a request is what the API stores and shows; the version of its form stands beside it, in the job's row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from service.errors import RecordUnreadable, VersionUnknown
from service.model.kinds import JobKind
from service.model.policy import FreezeMode, FreezePolicy, OnShortfall
from service.model.verdict import Verdict

VERSION = 1
"""Version 0 was written before versions were; it may lack fields that had a default then, and has the same form otherwise."""


@dataclass(frozen=True)
class DomainRequest:
    """`host`: what the caller named to choose between domains of one name."""

    kind: ClassVar[JobKind]
    domain: str
    host: str | None = None

    @property
    def would_freeze(self) -> bool:
        return False

    def as_document(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "domain": self.domain, "host": self.host}

    @classmethod
    def _common(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return {"domain": document.get("domain") or "", "host": document.get("host")}


@dataclass(frozen=True)
class ThawRequest(DomainRequest):
    kind: ClassVar[JobKind] = JobKind.thaw

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "ThawRequest":
        return cls(**cls._common(document))


@dataclass(frozen=True)
class FreezingRequest(DomainRequest):
    """`required_verdict` None: what the freeze mode promises."""

    freeze: FreezePolicy = field(default_factory=FreezePolicy)
    required_verdict: Verdict | None = None

    @property
    def would_freeze(self) -> bool:
        return self.freeze.mode is not FreezeMode.off

    def as_document(self) -> dict[str, Any]:
        required = self.required_verdict.value if self.required_verdict else None
        return {**super().as_document(), "freeze": self.freeze.as_document(), "required_verdict": required}

    @classmethod
    def _common(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        required = document.get("required_verdict")
        freeze = FreezePolicy.from_document(document.get("freeze"))
        return {**super()._common(document), "freeze": freeze, "required_verdict": Verdict(required) if required else None}


@dataclass(frozen=True)
class QuiesceRequest(FreezingRequest):
    kind: ClassVar[JobKind] = JobKind.quiesce

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "QuiesceRequest":
        return cls(**cls._common(document))


@dataclass(frozen=True)
class SnapshotRequest(FreezingRequest):
    """`disks` None: every disk that can take part."""

    kind: ClassVar[JobKind] = JobKind.snapshot
    disks: tuple[str, ...] | None = None
    on_shortfall: OnShortfall = OnShortfall.keep

    def as_document(self) -> dict[str, Any]:
        disks = list(self.disks) if self.disks is not None else None
        return {**super().as_document(), "disks": disks, "on_shortfall": self.on_shortfall.value}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "SnapshotRequest":
        disks, wish = document.get("disks"), document.get("on_shortfall")
        return cls(
            **cls._common(document),
            disks=tuple(disks) if disks is not None else None,
            on_shortfall=OnShortfall(wish) if wish else OnShortfall.keep,
        )


@dataclass(frozen=True)
class PreflightRequest(SnapshotRequest):
    """Asks whether such a snapshot would work. Nothing is frozen."""

    kind: ClassVar[JobKind] = JobKind.preflight

    @property
    def would_freeze(self) -> bool:
        return False

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "PreflightRequest":
        snapshot = SnapshotRequest.from_document(document)
        return cls(**vars(snapshot))


JobRequest = SnapshotRequest | PreflightRequest | QuiesceRequest | ThawRequest
#: `POST /api/v1/jobs` takes these. The others have their own addresses.
POSTED: tuple[type[JobRequest], ...] = (SnapshotRequest, PreflightRequest)
_TYPES: Mapping[str, type[JobRequest]] = {form.kind: form for form in get_args(JobRequest)}


def read(kind: str, document: Mapping[str, Any], version: int = VERSION) -> JobRequest:
    """The request in a job's row. Raises VersionUnknown, RecordUnreadable."""
    if version > VERSION:
        raise VersionUnknown(what="request", version=version, known=VERSION)
    try:
        return _TYPES[kind].from_document(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordUnreadable(what="request", reason=f"{type(error).__name__}: {error}") from error


def may_have_fuse(document: Mapping[str, Any]) -> bool:
    """Whether a worker that died over the job may have left a fuse in the guest. Works for newer versions and kinds, too."""
    return (document.get("freeze") or {}).get("fuse") is not False
