"""What a job answers about VSS in a Windows guest, as it is documented; jobs write it, and the API passes it on."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.model.windows.auto_recovery import BackupType, OnRestore, RecoveryMode
from service.model.windows.drift import Fact
from service.model.windows.sql_evidence import SqlProblem
from service.model.windows.sql_server import InstanceState
from service.model.windows.vss_outcome import VssDoubt, VssOutcome
from service.model.windows.vss_steps import Observation
from service.model.windows.writer_changes import ChangeKind
from service.model.windows.writer_texts import WriterError

Context = Literal["0x0200002B", "0x0200000B"]


class Recorded(BaseModel):
    model_config = ConfigDict(extra="allow")


class VssStep(Recorded):
    """One of the ten steps of a shadow copy, with what this job saw of it and no more."""

    step: int = Field(ge=1, le=10)
    name: str
    who: Literal["requester", "writers", "vss", "provider"] = Field(description="Who has control in this step.")
    observation: Observation = Field(description="`inferred`: not seen, but what was seen cannot be without it.")
    detail: str
    limit_ms: float | None = Field(description="The time that Windows allows; null: there is none to speak of.")
    limit_source: str | None
    started_at: str | None = Field(description="Null: when it began is not known.")
    duration_ms: float | None = Field(description="Null: how long it took is not known. Only the hold, step 6, can have one.")


class WriterState(Recorded):
    state: int = Field(description="VSS_WRITER_STATE, the number that vssadmin prints in brackets.")
    state_name: str
    last_error: str = Field(description="As vssadmin printed it, in the language of the guest.")
    error: WriterError | None = Field(description="What is understood of it; null: no error, or a text that is not known.")
    failed: bool | None = Field(description="Null: whether it failed cannot be told from its texts.")


class VssWriter(Recorded):
    """One instance of a writer before the freeze and after the thaw."""

    name: str
    class_id: str
    instance_id: str
    application: str | None = Field(description="What it speaks for; null: the class is not known.")
    before: WriterState | None = Field(description="Null: it was not listed then.")
    after: WriterState | None = Field(description="Null: it was not listed then.")
    change: ChangeKind
    newly_failed: bool = Field(description="It failed after the thaw, and not like this before the freeze.")
    note: str | None


class SqlEvent(Recorded):
    record_id: int
    event_id: Literal[3197, 3198] = Field(description="3197: I/O frozen. 3198: I/O resumed.")
    source: str = Field(description="The SQL Server instance.")
    database: str
    at: str | None


class SqlInstance(Recorded):
    instance: str
    state: InstanceState
    databases: list[str] | None = Field(description="Those that are online; null: they could not be asked for.")


class SqlServer(Recorded):
    """SQL Server's own word in the guest's event log, newer than this job's beginning."""

    is_proof: bool
    problem: SqlProblem | None
    databases: list[str]
    about: list[str] = Field(default=[], description="The databases or instances that the problem is about.")
    instances: list[SqlInstance] | None = Field(
        default=None, description="Those of the guest, whose databases must all be among the events. Null: not asked for, or not known."
    )
    events: list[SqlEvent]
    detail: str


class Drift(Recorded):
    """Something that is remembered of this guest and has changed since the last look at it."""

    code: str
    fact: Fact
    before: int | str | list[str]
    after: int | str | list[str]
    before_since: str
    last_seen_before: str
    since: str
    detail: str
    remedy: str


class VssRecord(Recorded):
    """What VSS did in the guest."""

    applicable: Literal[True]
    outcome: VssOutcome
    detail: str
    doubt: VssDoubt | None = Field(description="Why `completed` may not be what it says.")
    hresult: str | None = Field(pattern=r"^0x[0-9A-F]{8}$", description="The Windows error code, where the agent told it.")
    backup_type: BackupType = Field(description="As the agent asks VSS for it: the registry value VssOption decides.")
    context: Context | None = Field(description="VSS_SNAPSHOT_CONTEXT that the agent asks for; null: not known.")
    steps: list[VssStep] = Field(min_length=10, max_length=10)
    writers: list[VssWriter]
    writers_source: Literal["vssadmin"] | None = Field(description="Null: the writers after the thaw could not be had.")
    writers_unavailable_reason: str | None
    sql_server: SqlServer | None = Field(description="Null: the guest has no SqlServerWriter.")
    drift: list[Drift]


class VssNotApplicable(BaseModel):
    """VSS had no part in this job: the guest is not Windows, or was not to be frozen."""

    applicable: Literal[False]


class WriterRecovery(BaseModel):
    name: str
    on_restore: str = Field(description="A note about the application of this writer, for the person who restores.")


class AutoRecovery(Recorded):
    """Step 10: whether VSS recovered the copy, and what the person who restores must do."""

    mode: RecoveryMode
    source: Literal["derived"] = Field(description="The agent has no field for it: it follows from its version and the guest's.")
    on_restore: OnRestore
    context: Context | None
    detail: str
    writers: list[WriterRecovery]
