"""A track of a policy: what is done, when, and how long its points are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.errors import NoDiskCanTakePart, RetentionInvalid
from service.model.document_fields import Fields
from service.model.kinds import MAKE_POINT, SEALS_POINT, JobKind
from service.model.policy import FreezeMode, FreezePolicy, OnShortfall
from service.model.repository import Compare, Level
from service.model.request_limits import (
    DEMANDABLE,
    DISK_TARGET,
    MAX_DISKS,
    MAX_FREEZE_TIMEOUT_MS,
    MAX_HOLD_MS,
    MAX_IMPACT_MS,
    MAX_NAME,
    MAX_RATE_BYTES,
    MIN_FREEZE_TIMEOUT_MS,
    MIN_HOLD_MS,
    MIN_RATE_BYTES,
    PRINTABLE,
)
from service.model.requests import BackupRequest, SnapshotRequest
from service.model.retention_rules import NewFull, Rules
from service.model.schedule_rule import FIELDS as FIELDS_OF_SCHEDULE
from service.model.schedule_rule import ScheduleRule
from service.model.verdict import Verdict

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""The name of a policy or of a track. It stands in addresses and files, so it is neither `.` nor `..`."""
MAX_POLICY_NAME = 64
"""Characters of the name of a policy or of a track. A longer one is refused."""
MAX_COPIES = 8
"""Copies of a repository that a track may name. A track with more is refused."""
FIELDS = ("name", "job", "schedule", "retention", "copies")
KINDS = MAKE_POINT
"""The kinds of jobs that a track can have."""
_OF_EACH_KIND = ("kind", "leave_out", "freeze", "required_verdict", "on_shortfall")
_OF_BACKUP = ("repository", "level", "compress", "compare", "rate_limit_bytes", "impact_limit_ms")
_OF_FREEZE = ("mode", "timeout_ms", "hold_limit_ms", "hold_soft_ms", "preflush", "fuse")


@dataclass(frozen=True)
class Copying:
    """What only a backup is told. `repository`: name or id."""

    repository: str
    level: Level = Level.auto
    compress: bool = False
    compare: Compare = Compare.copied
    rate_limit_bytes: int | None = None
    impact_limit_ms: int | None = None

    @classmethod
    def read(cls, fields: Fields) -> "Copying":
        return cls(
            repository=fields.text("repository", "the name or id of a repository", pattern=PRINTABLE, longest=MAX_NAME),
            level=fields.choice("level", Level, Level.auto),
            compress=fields.flag("compress", default=False),
            compare=fields.choice("compare", Compare, Compare.copied),
            rate_limit_bytes=fields.whole_or_null("rate_limit_bytes", MIN_RATE_BYTES, MAX_RATE_BYTES),
            impact_limit_ms=fields.whole_or_null("impact_limit_ms", 1, MAX_IMPACT_MS),
        )

    def as_document(self) -> dict[str, Any]:
        return {**vars(self), "level": self.level.value, "compare": self.compare.value}


@dataclass(frozen=True)
class TrackJob:
    """`copying` None: a snapshot. `leave_out`: targets of disks that are not taken. A domain need not have them."""

    copying: Copying | None
    leave_out: tuple[str, ...] = ()
    freeze: FreezePolicy = field(default_factory=FreezePolicy)
    required_verdict: Verdict | None = None
    on_shortfall: OnShortfall = OnShortfall.keep

    @property
    def kind(self) -> JobKind:
        return BackupRequest.kind if self.copying is not None else SnapshotRequest.kind

    @classmethod
    def read(cls, fields: Fields) -> "TrackJob":
        kind = fields.choice_or_null("kind", JobKind, only=KINDS, is_needed=True)
        return cls(
            copying=Copying.read(fields) if kind == SEALS_POINT else None,
            leave_out=fields.texts("leave_out", "targets of disks such as vdb", pattern=DISK_TARGET, longest=MAX_NAME, limit=MAX_DISKS),
            freeze=_freeze(fields.object("freeze", _OF_FREEZE)),
            required_verdict=fields.choice_or_null("required_verdict", Verdict, only=DEMANDABLE),
            on_shortfall=fields.choice("on_shortfall", OnShortfall, OnShortfall.keep),
        )

    def as_document(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            **(self.copying.as_document() if self.copying is not None else {}),
            "leave_out": list(self.leave_out) or None,
            "freeze": self.freeze.as_document(),
            "required_verdict": self.required_verdict.value if self.required_verdict is not None else None,
            "on_shortfall": self.on_shortfall.value,
        }

    def request_for(self, domain: str, host: str | None, targets: Sequence[str]) -> SnapshotRequest:
        """The request for one domain, made when the run begins. `targets`: its disks that can take part, as its host published them last.

        A request names the disks that it takes, and cannot name those that it leaves out. So it names all others. A domain that has none
        of the disks that are left out gets a request without names, which takes every disk. Raises NoDiskCanTakePart.
        """
        disks = tuple(target for target in targets if target not in self.leave_out)
        left_out = [target for target in targets if target in self.leave_out]
        if left_out and not disks:
            reasons = dict.fromkeys(left_out, "the policy leaves it out")
            raise NoDiskCanTakePart(domain=domain, summary=f"the policy leaves out {', '.join(left_out)}", reasons=reasons)
        named: dict[str, Any] = {
            "domain": domain,
            "host": host,
            "freeze": self.freeze,
            "required_verdict": self.required_verdict,
            "disks": disks if left_out else None,
            "on_shortfall": self.on_shortfall,
        }
        return SnapshotRequest(**named) if self.copying is None else BackupRequest(**named, **vars(self.copying))


@dataclass(frozen=True)
class Track:
    """`retention` None: retention never removes a point of the track. `copies`: names or ids of copies that get its points."""

    name: str
    job: TrackJob
    schedule: ScheduleRule
    retention: Rules | None = None
    copies: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> "Track | None":
        """None: a part is missing, which is a fault."""
        name = fields.text("name", "letters, digits and - _ .", pattern=NAME, longest=MAX_POLICY_NAME)
        job = fields.object("job", _fields_of_job(fields.value("job")), is_needed=True)
        schedule = fields.object("schedule", FIELDS_OF_SCHEDULE, is_needed=True)
        read_job = TrackJob.read(job) if job is not None else None
        read_schedule = ScheduleRule.read(schedule) if schedule is not None else None
        retention = _retention(fields)
        copies = fields.texts("copies", "names or ids of copies of the repository", pattern=PRINTABLE, longest=MAX_NAME, limit=MAX_COPIES)
        if copies and read_job is not None and read_job.copying is None:
            fields.faults.refuse(fields.at("copies"), list(copies), "null for a job that leaves nothing in a repository")
        return cls(name, read_job, read_schedule, retention, copies) if read_job is not None and read_schedule is not None else None

    def request_for(self, domain: str, host: str | None, targets: Sequence[str]) -> SnapshotRequest:
        """As `TrackJob.request_for`. A backup is also told when its chain is long enough. Raises NoDiskCanTakePart."""
        request = self.job.request_for(domain, host, targets)
        if isinstance(request, BackupRequest) and self.retention is not None:
            return replace(request, new_full=self.retention.new_full)
        return request

    def as_document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "job": self.job.as_document(),
            "schedule": self.schedule.as_document(),
            "retention": self.retention.as_document() if self.retention is not None else None,
            "copies": list(self.copies) or None,
        }


def _fields_of_job(job: Any) -> tuple[str, ...]:
    """A snapshot does not have the fields of a backup. Without a kind that is known, all fields are known: one fault is enough."""
    kind = job.get("kind") if isinstance(job, dict) else None
    return _OF_EACH_KIND if kind in KINDS and kind != SEALS_POINT else _OF_EACH_KIND + _OF_BACKUP


def _freeze(fields: Fields | None) -> FreezePolicy:
    if fields is None:
        return FreezePolicy()
    default = FreezePolicy()
    return FreezePolicy(
        mode=fields.choice("mode", FreezeMode, default.mode),
        timeout_ms=fields.whole("timeout_ms", MIN_FREEZE_TIMEOUT_MS, MAX_FREEZE_TIMEOUT_MS, default=default.timeout_ms),
        hold_limit_ms=fields.whole_or_null("hold_limit_ms", MIN_HOLD_MS, MAX_HOLD_MS),
        hold_soft_ms=fields.whole_or_null("hold_soft_ms", MIN_HOLD_MS, MAX_HOLD_MS),
        preflush=fields.flag("preflush", default.preflush),
        fuse=fields.flag("fuse", default.fuse),
    )


def _retention(fields: Fields) -> Rules | None:
    known_before = len(fields.faults.all)
    read = fields.object("retention", tuple(Rules.__dataclass_fields__))
    if read is not None:
        read.object("new_full", tuple(NewFull.__dataclass_fields__))
    if read is None or len(fields.faults.all) > known_before:
        return None
    try:
        return Rules.from_document(fields.value("retention"))
    except RetentionInvalid as error:
        fields.faults.refuse(read.at(str(error.facts["field"])), error.facts["value"], error.facts["allowed"])
        return None
