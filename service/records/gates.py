"""The rows of gates. The worker and its emergency thaw open and close gates. The API marks the release.

A change that comes too late changes nothing.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import Gate, Job
from service.db.tokens import digest_of
from service.model.gate import GateState, worker_died
from service.model.lifecycle import JobState, PhaseName


def add(session: Session, job_id: str, token: str, hold_budget_ms: int) -> None:
    session.add(Gate(job_id=job_id, state=GateState.opening, token_digest=digest_of(token), hold_budget_ms=hold_budget_ms))


def try_to_open(session: Session, job_id: str, filesystems_frozen: int, left: timedelta) -> bool:
    """Record that the guest is held for `left` from now. False: the caller stopped to wait, or the gate is closed already."""
    now = database_now(session)
    opened = (
        update(Gate)
        .where(Gate.job_id == job_id, Gate.state == GateState.opening)
        .values(state=GateState.open, filesystems_frozen=filesystems_frozen, opened_at=now, deadline_at=now + left)
        .returning(Gate.job_id)
    )
    return session.scalar(opened) is not None


def state_of(session: Session, job_id: str) -> GateState | None:
    """None: this job has no gate."""
    state = session.scalar(select(Gate.state).where(Gate.job_id == job_id))
    return GateState(state) if state is not None else None


def request_release(session: Session, job_id: str) -> None:
    """Ask for the release. A second request changes nothing."""
    session.execute(
        update(Gate)
        .where(Gate.job_id == job_id, Gate.state.in_([GateState.opening, GateState.open]))
        .values(state=GateState.releasing, release_requested_at=database_now(session))
    )


def close(session: Session, job_id: str) -> Gate | None:
    """Close the gate and return its row. None: this job never had a gate."""
    gate = session.get(Gate, job_id, with_for_update=True)
    if gate is not None:
        gate.state = GateState.closed
    return gate


def close_all(session: Session, job_ids: Collection[str]) -> None:
    """Close the gates of jobs that will never run."""
    session.execute(
        update(Gate).where(Gate.job_id.in_(job_ids)).values(state=GateState.closed).execution_options(synchronize_session=False)
    )


def close_of_domain(session: Session, domain_id: str) -> None:
    """Close the gate of a domain whose guest was thawed, also a gate that was just about to open."""
    in_window = select(Job.id).where(Job.domain_id == domain_id, Job.state == JobState.running, Job.phase == PhaseName.freeze)
    session.execute(
        update(Gate)
        .where(Gate.job_id.in_(in_window), Gate.state.in_([GateState.opening, GateState.open]))
        .values(state=GateState.closed)
        .execution_options(synchronize_session=False)
    )


def close_after_death(session: Session, job: Job) -> dict[str, Any]:
    """Close the gate of a job whose worker died. Returns the columns of the job."""
    gate = close(session, job.id)
    judgement = worker_died(was_opened=gate is not None and gate.opened_at is not None)
    return {
        "verdict": judgement.verdict.value,
        "verdict_reasons": judgement.as_documents(),
        "result": result_document(gate, gate.hold_budget_ms if gate is not None else None, held=False),
    }


def result_document(gate: Gate | None, hold_budget_ms: int | None, *, held: bool) -> dict[str, Any]:
    """The `result` of the job. `gate` None: the gate never opened."""
    return {
        "opened_at": rfc3339(gate.opened_at) if gate and gate.opened_at else None,
        "released_at": rfc3339(gate.release_requested_at) if gate and gate.release_requested_at else None,
        "hold_budget_ms": hold_budget_ms,
        "held": held,
    }
