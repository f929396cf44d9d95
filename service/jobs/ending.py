"""How a job ends, as values. `JobRun.finish` alone writes them."""

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
    """`error` None: the job succeeded. What is None besides is left as the row has it."""

    error: StillpointError | None = None
    judgement: Judgement | None = None
    evidence: dict[str, Any] | None = None
    #: What programs printed: a part of the evidence that ages out alone.
    texts: Texts = field(default_factory=dict)
    result: dict[str, Any] | None = None
    vss: VssRecord | None = None
    point: RecoveryPoint | None = None
    #: The job that follows, unless somebody wants this one cancelled.
    next_try: NewJob | None = None
    #: Everything that the job had intended was undone again: nobody must look for it.
    is_undone: bool = False

    @property
    def state(self) -> JobState:
        if self.error is None:
            return JobState.succeeded
        return JobState.cancelled if isinstance(self.error, JobCancelled) else JobState.failed

    def judged(self) -> dict[str, Any]:
        """The columns of what was found out, without the end."""
        columns: dict[str, Any] = {"evidence": self.evidence} if self.evidence is not None else {}
        if self.judgement is not None:
            columns |= judgement_columns(self.judgement)
        return columns | (self.vss.as_columns() if self.vss is not None else {})

    def columns(self) -> dict[str, Any]:
        columns = {
            **self.judged(),
            "phase": None,
            "error": self.error.as_document() if self.error else None,
            "recovery_point": point_document(self.point) if self.point else None,
        }
        if self.result is not None:
            columns["result"] = self.result
        return columns | {"intent": None} if self.is_undone else columns


def judgement_columns(judgement: Judgement) -> dict[str, Any]:
    return {"verdict": judgement.verdict.value, "verdict_reasons": judgement.as_documents()}


def point_document(point: RecoveryPoint) -> dict[str, Any]:
    return {"id": point.id, "point_in_time_at": rfc3339(point.point_in_time_at), "verdict": point.verdict, "disks": point.disks}
