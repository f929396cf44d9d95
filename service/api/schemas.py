"""Requests and answers as they are documented; answers are written by the database and only described here."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema

from service.api import examples
from service.api.schemas_windows import AutoRecovery, VssNotApplicable, VssRecord
from service.model.fuse import FUSE_MARGIN_S
from service.model.kinds import JobKind
from service.model.lifecycle import JobState, PhaseName, PhaseOutcome
from service.model.policy import (
    DEFAULT_FREEZE_TIMEOUT_MS,
    DEFAULT_HOLD_LIMIT_MS,
    WINDOWS_HOLD_LIMIT_MS,
    WINDOWS_HOLD_MS,
    WINDOWS_HOLD_SOFT_MS,
    FreezeMode,
    OnShortfall,
)
from service.model.verdict import Verdict
from service.model.vss_outcome import RETRIES, VssOutcome

# No control characters anywhere: PostgreSQL refuses NUL, and the rest only hides what a name really is.
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
RFC_3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$", re.ASCII)
MAX_LABELS = 32
MAX_DISKS = 64


def _without_repetition(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("every disk may be named once only")
    return values


def _instant(value: Any) -> datetime:
    if not isinstance(value, str) or not RFC_3339.match(value):
        raise ValueError("give an RFC 3339 time such as 2026-01-31T22:00:00Z; a + in a query is written %2B")
    moment = datetime.fromisoformat(value.upper())
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if moment.year > 2000 else datetime.min.replace(tzinfo=UTC)


def _whole(value: Any) -> Any:
    """1000.0 is an integer in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _true_or_false(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value)


Flag = Annotated[StrictBool, BeforeValidator(_true_or_false)]
"""Of a query: JSON's words, and not all that Python would take for a boolean."""
WholeNumber = Annotated[StrictInt, BeforeValidator(_whole)]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=PRINTABLE)]
HostName = Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)]
DiskTarget = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=255, pattern=PRINTABLE)]
Disks = Annotated[
    list[DiskTarget],
    Field(min_length=1, max_length=MAX_DISKS, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_without_repetition),
]
Instant = Annotated[
    datetime, BeforeValidator(_instant, json_schema_input_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


Hold = Annotated[StrictInt, Field(ge=100, le=600_000), BeforeValidator(_whole)]


class FreezeRequest(Request):
    """How the guest is frozen."""

    mode: FreezeMode = Field(
        default=FreezeMode.required,
        description="`required`: no freeze, no snapshot. `preferred`: freeze where it works. `off`: do not freeze.",
    )
    timeout_ms: WholeNumber = Field(
        default=DEFAULT_FREEZE_TIMEOUT_MS, ge=1_000, le=600_000, description="How long the guest may take until it is frozen."
    )
    hold_limit_ms: Hold | None = Field(
        default=None,
        description="How long writes may be held before the guest is thawed in any case. Left out: "
        f"{DEFAULT_HOLD_LIMIT_MS}, for Windows {WINDOWS_HOLD_LIMIT_MS}. Windows cannot hold them for {WINDOWS_HOLD_MS} or more.",
    )
    hold_soft_ms: Hold | None = Field(
        default=None,
        description="Do not begin the point in time later than this after the freeze: late is worse than never. Left out: "
        f"no such limit, for Windows {WINDOWS_HOLD_SOFT_MS}.",
    )
    preflush: StrictBool = Field(
        default=True, description="Flush the guest's dirty pages while it still runs, so that the freeze is short."
    )
    fuse: StrictBool = Field(
        default=True,
        description="Start something in a Linux guest before the freeze that thaws the guest by itself if nobody on the host did so "
        f"{FUSE_MARGIN_S} s after `timeout_ms` and the hold limit together. It needs guest-exec; a guest that cannot have it is "
        "frozen without, and the job's `freeze.fuse` says why.",
    )


class WorkRequest(Request):
    """What is looked at, and how."""

    disks: Disks | None = Field(default=None, description="Targets of the disks (`vda`); left out: every disk that can take part.")
    freeze: FreezeRequest = Field(default_factory=FreezeRequest)


class PreflightRequest(WorkRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.PREFLIGHT_REQUEST]})


class JobRequest(WorkRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.SNAPSHOT_REQUEST]})

    kind: Literal[JobKind.snapshot, JobKind.preflight]
    domain: Name = Field(description="Name or UUID of a domain that a host has published.")
    host: HostName | None = Field(default=None, description="Needed only when several hosts have a domain of this name.")
    required_verdict: Literal["crash", "filesystem", "application_unverified", "application"] | None = Field(
        default=None,
        description="The least verdict that counts as success. Left out, the freeze mode decides: `required` asks for at least "
        "`filesystem` from a running guest.",
    )
    on_shortfall: OnShortfall = Field(
        default=OnShortfall.keep,
        description="What becomes of a point that is worse than that. `keep`: it stays, with its true verdict. `discard`: its overlays "
        f"are merged back. `retry`: it stays, and after a pause a new job tries again, up to {RETRIES} times; so does a freeze that "
        "VSS refused for a reason that passes. The job itself fails in every case.",
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        max_length=MAX_LABELS,
        description="Your own marks; jobs can be listed by them.",
        json_schema_extra={"additionalProperties": False},
    )


class Filter(Request):
    limit: int = Field(default=50, ge=1, le=200, description="Items on a page.")
    cursor: str | None = Field(default=None, max_length=512, description="`next_cursor` of the page before, unchanged.")


class JobFilter(Filter):
    state: JobState | None = None
    kind: JobKind | None = None
    domain: Name | None = Field(default=None, description="Name or UUID.")
    host: HostName | None = None
    verdict: Verdict | None = None
    vss_outcome: VssOutcome | None = Field(default=None, description="How VSS ended in a Windows guest.")
    writer_failed: Flag | None = Field(
        default=None,
        description="`true`: after the thaw a VSS writer was in a failed state. `false`: the list could be read, and none was. "
        "Jobs of which neither is known are found by neither.",
    )
    label: list[Annotated[str, Field(max_length=320, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}:[^\x00-\x1f\x7f]*$")]] = Field(
        default_factory=list, max_length=8, description="`key:value`; repeat it to ask for several labels at once."
    )
    since: Instant | None = Field(default=None, description="Created at this time or later.")
    until: Instant | None = Field(default=None, description="Created before this time.")


class RecoveryPointFilter(Filter):
    domain: Name | None = Field(default=None, description="Name or UUID.")
    host: HostName | None = None
    verdict: Verdict | None = None
    since: Instant | None = Field(default=None, description="Created at this time or later.")
    until: Instant | None = Field(default=None, description="Created before this time.")


class DomainFilter(Filter):
    host: HostName | None = None
    state: str | None = Field(default=None, max_length=32, pattern=PRINTABLE, description="As shown: `running`, `shut_off`, `unknown`, …")
    name: Name | None = None


class HostChoice(Request):
    host: HostName | None = Field(default=None, description="Needed only when several hosts have a domain of this name.")


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Reference(BaseModel):
    id: str
    name: str


class Phase(Answer):
    name: PhaseName
    started_at: str | None
    duration_ms: float | None
    outcome: PhaseOutcome


class JobSummary(Answer):
    """A job as it stands in a list: without `evidence`, `vss` and `auto_recovery`."""

    id: str
    kind: JobKind
    domain: Reference
    host: str
    state: JobState
    phase: str | None
    attempt: int
    max_attempts: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested: bool
    retry_of: str | None
    labels: dict[str, str]
    request: dict[str, Any]
    verdict: Verdict | None
    verdict_reasons: list[dict[str, Any]]
    vss_outcome: VssOutcome | None = Field(description="How VSS ended; null: it had no part in this job, or not yet.")
    writer_failed: bool | None = Field(
        description="A VSS writer was in a failed state after the thaw; null: that is not known, or there are no writers."
    )
    freeze: dict[str, Any] | None
    timing: dict[str, Any] | None
    phases: list[Phase]
    recovery_point: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    links: dict[str, str]


class JobAnswer(JobSummary):
    """A job with everything that is known of it; what is not known yet is null."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.WINDOWS_JOB, examples.JOB]})

    vss: VssRecord | VssNotApplicable | None
    auto_recovery: AutoRecovery | None
    evidence: dict[str, Any] | None


class JobPage(BaseModel):
    items: list[JobSummary]
    next_cursor: str | None


class Explanation(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXPLANATION]})

    summary: str
    because: list[str]
    would_lift: list[str]


class RecoveryPointAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.RECOVERY_POINT]})

    id: str
    job_id: str
    kind: str
    domain: Reference
    host: str
    created_at: str
    point_in_time_at: str
    verdict: Verdict
    labels: dict[str, str]
    disks: list[dict[str, Any]]
    size_bytes: int | None
    links: dict[str, str]


class RecoveryPointPage(BaseModel):
    items: list[RecoveryPointAnswer]
    next_cursor: str | None


class NewestRecoveryPoint(BaseModel):
    id: str
    created_at: str
    verdict: Verdict


class FreezingJob(BaseModel):
    job_id: str


class DomainAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.DOMAIN]})

    id: str
    name: str
    host: str
    state: str = Field(description="`unknown` while its host has not been heard of for a while.")
    stale: bool = Field(description="True: the host has not reported for more than three inventory periods.")
    published_at: str
    persistent: bool | None
    frozen: bool | None = Field(
        description="True from the moment a job of Stillpoint sends freeze, and when the guest was found frozen by somebody else; "
        "null: its agent did not say."
    )
    frozen_since: str | None = Field(
        description="When the job of Stillpoint sent freeze, or when a freeze of somebody else was first seen; null: it is not frozen."
    )
    frozen_by: FreezingJob | Literal["unknown", "not_stillpoint"] | None = Field(
        description="The job that holds it, or that ended without an answer to its thaw. `not_stillpoint`: it was seen thawed, and no "
        "job froze it since. `unknown`: neither is known. Null: it is not frozen."
    )
    disks: list[dict[str, Any]]
    filesystems: list[dict[str, Any]] | None
    agent: dict[str, Any] | None
    os: dict[str, Any] | None
    newest_recovery_point: NewestRecoveryPoint | None
    links: dict[str, str]


class DomainPage(BaseModel):
    items: list[DomainAnswer]
    next_cursor: str | None


class HostAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.HOST]})

    id: str
    started_at: str
    last_seen: str
    seconds_since_seen: float
    stale: bool
    version: str
    libvirt_uri: str
    libvirt_connected: bool
    libvirt_error: str | None
    versions: dict[str, Any]
    inventory_at: str | None


class HostPage(BaseModel):
    items: list[HostAnswer]
    next_cursor: str | None


class ForgottenHost(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.FORGOTTEN_HOST]})

    id: str
    jobs_failed: list[str] = Field(description="Jobs that ran on it: they failed with `host_forgotten`.")
    jobs_cancelled: int = Field(description="How many jobs were queued for it.")
    domains: int = Field(description="How many domains left the list.")


class Health(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"]


class Problem(BaseModel):
    """RFC 9457, with a stable `code`, what to do (`remedy`), and the facts by name."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str
    facts: dict[str, Any]
    instance: str
