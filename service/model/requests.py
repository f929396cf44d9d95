"""What a job is asked to do, kind by kind: typed, and read once when the job is claimed.

The document of a request is what the API stores and shows; the version of its form stands beside it, in the job's row.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, get_args

from service.errors import RecordUnreadable, VersionUnknown
from service.model.copied import CopyWish
from service.model.kinds import JobKind
from service.model.points_request import PointsRequest
from service.model.policy import FreezeMode, FreezePolicy, OnShortfall
from service.model.repository import Compare, IdentityChoice, Level, ProofKind, RestoreMode, VerifyWhen
from service.model.retention_rules import NewFull
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


@dataclass(frozen=True)
class BackupRequest(SnapshotRequest):
    """`repository`: the id of a registered repository. `rate_limit_bytes`: bytes a second. `impact_limit_ms`: the guest's mean write or
    flush latency above which the copy yields; None: the copy never yields. `new_full`: when the level `auto` makes a full; None: only where
    an increment is not possible."""

    kind: ClassVar[JobKind] = JobKind.backup
    repository: str = ""
    level: Level = Level.auto
    compress: bool = False
    compare: Compare = Compare.copied
    rate_limit_bytes: int | None = None
    impact_limit_ms: int | None = None
    pinned: bool = False
    new_full: NewFull | None = None

    def as_document(self) -> dict[str, Any]:
        return {
            **super().as_document(),
            "repository": self.repository,
            "level": self.level.value,
            "compress": self.compress,
            "compare": self.compare.value,
            "rate_limit_bytes": self.rate_limit_bytes,
            "impact_limit_ms": self.impact_limit_ms,
            "pinned": self.pinned,
            "new_full": asdict(self.new_full) if self.new_full is not None else None,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "BackupRequest":
        snapshot = SnapshotRequest.from_document(document)
        return cls(
            **vars(snapshot),
            repository=document["repository"],
            level=Level(document.get("level") or Level.auto),
            compress=bool(document.get("compress")),
            compare=Compare(document.get("compare") or Compare.copied),
            rate_limit_bytes=document.get("rate_limit_bytes"),
            impact_limit_ms=document.get("impact_limit_ms"),
            pinned=bool(document.get("pinned")),
            new_full=NewFull.from_document(document["new_full"]) if document.get("new_full") is not None else None,
        )


@dataclass(frozen=True)
class RestoreRequest:
    """`domain`: the name of the domain that is restored, as its point says. `disks` None: every disk of the point.

    `name`: the name of the new domain. `folder`: where the new disks are written; None: beside the disks that the definition names.
    `new_uuid`: the UUID that the API chose for a new domain, so that the job locks it. `remove_old_disks`: once the new domain has run.
    `stop`: a running domain may be stopped for a restore in place. `plan_only`: the job ends with the plan, and writes nothing.
    """

    kind: ClassVar[JobKind] = JobKind.restore
    recovery_point: str
    mode: RestoreMode
    domain: str = ""
    host: str | None = None
    disks: tuple[str, ...] | None = None
    name: str | None = None
    folder: str | None = None
    identity: IdentityChoice = IdentityChoice.auto
    start: bool = False
    stop: bool = False
    accept_usn_risk: bool = False
    new_uuid: str | None = None
    remove_old_disks: bool = False
    rate_limit_bytes: int | None = None
    plan_only: bool = False
    verify: VerifyWhen = VerifyWhen.auto
    accept_unsigned: bool = False

    @property
    def would_freeze(self) -> bool:
        return False

    def as_document(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        disks = list(self.disks) if self.disks is not None else None
        return {
            "kind": self.kind.value,
            **plain,
            "mode": self.mode.value,
            "identity": self.identity.value,
            "disks": disks,
            "verify": self.verify.value,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "RestoreRequest":
        known = {field.name: document[field.name] for field in fields(cls) if document.get(field.name) is not None}
        disks = document.get("disks")
        known |= {
            "mode": RestoreMode(document["mode"]),
            "identity": IdentityChoice(document.get("identity") or IdentityChoice.auto),
            "disks": tuple(disks) if disks is not None else None,
            "verify": VerifyWhen(document.get("verify") or VerifyWhen.auto),
        }
        return cls(**known)


@dataclass(frozen=True)
class VerifyRequest:
    """`checks`: what is looked at; bytes are always read first, because nothing else says anything about a damaged file.

    `domain`, `domain_id`: of the point. The job itself is about no domain, which may not be there any more. `by_plan`: no caller asked
    for it, but the budget of the repository. `heal`: bad files are made again where good copies of their bytes are found.
    """

    kind: ClassVar[JobKind] = JobKind.verify
    recovery_point: str
    domain: str = ""
    host: str | None = None
    checks: tuple[ProofKind, ...] = (ProofKind.bytes, ProofKind.structure, ProofKind.filesystem)
    rate_limit_bytes: int | None = None
    domain_id: str | None = None
    by_plan: bool = False
    heal: bool = False

    @property
    def would_freeze(self) -> bool:
        return False

    def as_document(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "recovery_point": self.recovery_point,
            "by_plan": self.by_plan,
            "heal": self.heal,
            "domain": self.domain,
            "domain_id": self.domain_id,
            "host": self.host,
            "checks": [check.value for check in self.checks],
            "rate_limit_bytes": self.rate_limit_bytes,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "VerifyRequest":
        checks = document.get("checks")
        return cls(
            recovery_point=document["recovery_point"],
            domain=document.get("domain") or "",
            domain_id=document.get("domain_id"),
            host=document.get("host"),
            checks=tuple(ProofKind(check) for check in checks) if checks is not None else cls.checks,
            rate_limit_bytes=document.get("rate_limit_bytes"),
            by_plan=bool(document.get("by_plan")),
            heal=bool(document.get("heal")),
        )


@dataclass(frozen=True)
class PruneRequest(PointsRequest):
    """`with_needing`: also all points that stand on them. `retention`: by which rule each goes; None: a person asked."""

    kind: ClassVar[JobKind] = JobKind.prune
    with_needing: bool = False
    retention: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class MergeRequest(PointsRequest):
    """What the points hold moves into those that stand on them. `remove`: also removes them then. The rate: bytes that are read.

    `retention`: by which rule each is merged and goes; None: a person asked.
    """

    kind: ClassVar[JobKind] = JobKind.merge
    remove: bool = False
    rate_limit_bytes: int | None = None
    retention: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class CopyRequest(CopyWish):
    kind: ClassVar[JobKind] = JobKind.copy

    def as_document(self) -> dict[str, Any]:
        return {"kind": self.kind.value, **self.wish_as_document()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "CopyRequest":
        return cls(**cls.wish_in(document))


JobRequest = (
    SnapshotRequest
    | PreflightRequest
    | QuiesceRequest
    | ThawRequest
    | BackupRequest
    | RestoreRequest
    | VerifyRequest
    | PruneRequest
    | CopyRequest
    | MergeRequest
)
#: `POST /api/v1/jobs` takes these. The others have their own addresses.
POSTED: tuple[type[JobRequest], ...] = tuple(form for form in get_args(JobRequest) if form not in (QuiesceRequest, ThawRequest))
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
