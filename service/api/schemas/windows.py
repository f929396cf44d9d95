"""Describes what a job says about VSS in a Windows guest. Jobs write these documents, and the API passes them on."""

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
    """One of the ten steps of a shadow copy, with only what this job saw of the step."""

    step: int = Field(ge=1, le=10)
    name: str
    who: Literal["requester", "writers", "vss", "provider"] = Field(description="The part that has control in this step.")
    observation: Observation = Field(description="`inferred`: the step was not seen, but follows from other steps that were seen.")
    detail: str
    limit_ms: float | None = Field(description="The time that Windows allows. Null: Windows has no limit for this step.")
    limit_source: str | None
    started_at: str | None = Field(description="Null: the beginning is not known.")
    duration_ms: float | None = Field(description="Null: the duration is not known. Only the hold, step 6, can have a duration.")


class WriterState(Recorded):
    state: int = Field(description="VSS_WRITER_STATE, the number that vssadmin prints in brackets.")
    state_name: str
    last_error: str = Field(description="As vssadmin printed it, in the language of the guest.")
    error: WriterError | None = Field(description="The meaning of that text. Null: no error, or a text that is not known.")
    failed: bool | None = Field(description="Null: the texts do not tell whether the writer failed.")


class VssWriter(Recorded):
    """One instance of a writer before the freeze and after the thaw."""

    name: str
    class_id: str
    instance_id: str
    application: str | None = Field(description="The application of the writer. Null: the class is not known.")
    before: WriterState | None = Field(description="Null: the writer was not listed then.")
    after: WriterState | None = Field(description="Null: the writer was not listed then.")
    change: ChangeKind
    newly_failed: bool = Field(description="The writer failed after the thaw, and had not failed in the same way before the freeze.")
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
    databases: list[str] | None = Field(description="The databases that are online. Null: they could not be read.")


class SqlServer(Recorded):
    """SQL Server's own events in the guest's event log, newer than the beginning of this job."""

    is_proof: bool
    problem: SqlProblem | None
    databases: list[str]
    about: list[str] = Field(default=[], description="The databases or instances that the problem is about.")
    instances: list[SqlInstance] | None = Field(
        default=None, description="The instances in the guest. All their databases must be among the events. Null: not read, or not known."
    )
    events: list[SqlEvent]
    detail: str


class Drift(Recorded):
    """A remembered fact of this guest that has changed since the last job."""

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
    """The work of VSS in the guest."""

    applicable: Literal[True]
    outcome: VssOutcome
    detail: str
    doubt: VssDoubt | None = Field(description="Why `completed` may be wrong.")
    hresult: str | None = Field(pattern=r"^0x[0-9A-F]{8}$", description="The Windows error code, if the agent reported one.")
    backup_type: BackupType = Field(description="The type that the agent asks VSS for. The registry value VssOption decides.")
    context: Context | None = Field(description="The VSS_SNAPSHOT_CONTEXT that the agent asks for. Null: not known.")
    steps: list[VssStep] = Field(min_length=10, max_length=10)
    writers: list[VssWriter]
    writers_source: Literal["vssadmin"] | None = Field(description="Null: the writers after the thaw could not be read.")
    writers_unavailable_reason: str | None
    sql_server: SqlServer | None = Field(description="Null: the guest has no SqlServerWriter.")
    drift: list[Drift]


class VssNotApplicable(BaseModel):
    """VSS had no part in this job: the guest is not Windows, or the job did not freeze."""

    applicable: Literal[False]


class WriterRecovery(BaseModel):
    name: str
    on_restore: str = Field(description="A note about the application of this writer, for the person who restores.")


class AutoRecovery(Recorded):
    """Step 10: whether VSS recovered the copy, and what the person who restores must do."""

    mode: RecoveryMode
    source: Literal["derived"] = Field(description="The agent has no field for the mode. The versions of agent and guest decide.")
    on_restore: OnRestore
    context: Context | None
    detail: str
    writers: list[WriterRecovery]
