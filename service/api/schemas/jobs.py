"""The requests and documents of jobs. The database writes the documents; the classes here describe them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.api.schemas import examples
from service.api.schemas.fields import (
    Answer,
    Disks,
    Filter,
    Flag,
    Hold,
    HostName,
    Instant,
    Name,
    Reference,
    Request,
    WholeNumber,
)
from service.api.schemas.windows import AutoRecovery, VssNotApplicable, VssRecord
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
)
from service.model.request_limits import MAX_FREEZE_TIMEOUT_MS, MIN_FREEZE_TIMEOUT_MS
from service.model.verdict import Verdict
from service.model.windows.vss_outcome import VssOutcome


class FreezeRequest(Request):
    """How the guest is frozen."""

    mode: FreezeMode = Field(
        default=FreezeMode.required,
        description="`required`: no freeze, no snapshot. `preferred`: freeze if that works. `off`: do not freeze.",
    )
    timeout_ms: WholeNumber = Field(
        default=DEFAULT_FREEZE_TIMEOUT_MS,
        ge=MIN_FREEZE_TIMEOUT_MS,
        le=MAX_FREEZE_TIMEOUT_MS,
        description="How long the guest may take until it is frozen.",
    )
    hold_limit_ms: Hold | None = Field(
        default=None,
        description="How long writes may be held before the guest is thawed in any case. Left out: "
        f"{DEFAULT_HOLD_LIMIT_MS}, for Windows {WINDOWS_HOLD_LIMIT_MS}. Windows cannot hold writes for {WINDOWS_HOLD_MS} or more.",
    )
    hold_soft_ms: Hold | None = Field(
        default=None,
        description="Do not begin the point in time later than this after the freeze, and thaw instead. Left out: "
        f"no such limit, for Windows {WINDOWS_HOLD_SOFT_MS}.",
    )
    preflush: StrictBool = Field(
        default=True, description="Flush the guest's dirty pages while it still runs, so that the freeze is short."
    )
    fuse: StrictBool = Field(
        default=True,
        description="Start a program in a Linux guest before the freeze that thaws the guest by itself if nobody on the host did so "
        f"{FUSE_MARGIN_S} s after `timeout_ms` and the hold limit together. It needs guest-exec. A guest that cannot have a fuse is "
        "frozen without a fuse, and the job's `freeze.fuse` says why.",
    )


class WorkRequest(Request):
    """The disks that a job looks at, and how it freezes."""

    disks: Disks | None = Field(default=None, description="Targets of the disks (`vda`); left out: every disk that can take part.")
    freeze: FreezeRequest = Field(default_factory=FreezeRequest)


class PreflightRequest(WorkRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.PREFLIGHT_REQUEST]})


class JobFilter(Filter):
    state: JobState | None = None
    kind: JobKind | None = None
    domain: Name | None = Field(default=None, description="Name or UUID. Also jobs that name points of the domain.")
    host: HostName | None = None
    verdict: Verdict | None = None
    vss_outcome: VssOutcome | None = Field(default=None, description="How VSS ended in a Windows guest.")
    writer_failed: Flag | None = Field(
        default=None,
        description="`true`: after the thaw a VSS writer was in a failed state. `false`: the list could be read, and no writer was. "
        "A job of which neither is known matches neither.",
    )
    label: list[Annotated[str, Field(max_length=320, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}:[^\x00-\x1f\x7f]*$")]] = Field(
        default_factory=list, max_length=8, description="`key:value`; repeat it to ask for several labels at once."
    )
    since: Instant | None = Field(default=None, description="Created at this time or later.")
    until: Instant | None = Field(default=None, description="Created before this time.")


class Phase(Answer):
    name: PhaseName
    started_at: str | None
    duration_ms: float | None
    outcome: PhaseOutcome


class Waiting(Answer):
    """What a step waits for, such as a repository that is full or does not answer."""

    code: str = Field(description="The code of the error that may pass.")
    detail: str
    since: str
    until: str = Field(description="The job gives up then.")


class Progress(Answer):
    """How far a phase that copies or reads has come."""

    phase: PhaseName
    disk: str | None = Field(description="Null: all disks together.")
    done_bytes: int
    total_bytes: int | None = Field(description="Null: not known.")
    rate_bytes_s: int | None
    seconds_left: float | None
    waiting_for: Waiting | None = Field(default=None, description="Null: it does not wait.")


class JobSummary(Answer):
    """A job in a list: without `evidence`, `vss` and `auto_recovery`."""

    id: str
    kind: JobKind
    domain: Reference | None = Field(description="A job about a point names the domain of the point. Null: the job is about neither.")
    host: str
    state: JobState
    phase: str | None
    progress: Progress | None = Field(description="Null: no phase runs that copies or reads for long.")
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
    vss_outcome: VssOutcome | None = Field(description="How VSS ended. Null: VSS had no part in this job, or not yet.")
    writer_failed: bool | None = Field(
        description="A VSS writer was in a failed state after the thaw. Null: that is not known, or there are no writers."
    )
    freeze: dict[str, Any] | None
    timing: dict[str, Any] | None
    phases: list[Phase]
    recovery_point: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    links: dict[str, str]


class JobAnswer(JobSummary):
    """A job with everything that is known about it. A field that is not known yet is null."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.WINDOWS_JOB, examples.JOB, examples.BACKUP_JOB]})

    vss: VssRecord | VssNotApplicable | None
    auto_recovery: AutoRecovery | None
    evidence: dict[str, Any] | None = Field(
        description="The facts that the verdict rests on. `windows` has the output of programs in a Windows guest, or only "
        "`aged_out_at`: when the output was removed because of its age."
    )


class JobPage(BaseModel):
    items: list[JobSummary]
    next_cursor: str | None


class Explanation(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXPLANATION]})

    summary: str
    because: list[str]
    would_lift: list[str]
