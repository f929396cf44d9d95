"""The end of a job, as values. Only `JobRun.finish` writes them."""

from dataclasses import dataclass, field
from typing import Any

from service.clock import rfc3339
from service.db.tables import RecoveryPoint
from service.errors import JobCancelled, StillpointError
from service.freeze.vss_record import VssRecord
from service.model.lifecycle import JobState
from service.model.verdict import Judgement
from service.records.queue import NewJob
from service.records.raw_texts import Texts


@dataclass(frozen=True)
class Ending:
    """`error` None: the job succeeded. For every other field None leaves the row as it is."""

    error: StillpointError | None = None
    judgement: Judgement | None = None
    evidence: dict[str, Any] | None = None
    #: The output of programs. These texts are a part of the evidence that is removed earlier than the rest.
    texts: Texts = field(default_factory=dict)
    result: dict[str, Any] | None = None
    vss: VssRecord | None = None
    point: RecoveryPoint | None = None
    #: The job that follows, unless a caller asked to cancel this job.
    next_try: NewJob | None = None
    #: Everything that the job had intended was undone, so recovery need not look for anything.
    is_undone: bool = False
    #: The point of the job is on record already, and the job's row names it.
    keeps_point: bool = False

    @property
    def state(self) -> JobState:
        if self.error is None:
            return JobState.succeeded
        return JobState.cancelled if isinstance(self.error, JobCancelled) else JobState.failed

    def judged(self) -> dict[str, Any]:
        """The columns of evidence and judgement, without the columns that end the job."""
        columns: dict[str, Any] = {"evidence": self.evidence} if self.evidence is not None else {}
        if self.judgement is not None:
            columns |= judgement_columns(self.judgement)
        return columns | (self.vss.as_columns() if self.vss is not None else {})

    def columns(self) -> dict[str, Any]:
        columns = {
            **self.judged(),
            "phase": None,
            "error": self.error.as_document() if self.error else None,
        }
        if not self.keeps_point:
            columns["recovery_point"] = point_document(self.point) if self.point else None
        if self.result is not None:
            columns["result"] = self.result
        return columns | {"intent": None} if self.is_undone else columns


def judgement_columns(judgement: Judgement) -> dict[str, Any]:
    return {"verdict": judgement.verdict.value, "verdict_reasons": judgement.as_documents()}


def point_document(point: RecoveryPoint) -> dict[str, Any]:
    return {"id": point.id, "point_in_time_at": rfc3339(point.point_in_time_at), "verdict": point.verdict, "disks": point.disks}
