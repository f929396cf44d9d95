"""The rows of gates. The worker opens and closes, and so does its emergency thaw; the API marks the release. Whoever comes late
changes nothing."""

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
from service.model.requests import QuiesceRequest


def add(session: Session, job_id: str, token: str, hold_budget_ms: int) -> None:
    session.add(Gate(job_id=job_id, state=GateState.opening, token_digest=digest_of(token), hold_budget_ms=hold_budget_ms))


def try_to_open(session: Session, job_id: str, filesystems_frozen: int, left: timedelta) -> bool:
    """The guest is held, for `left` from now. False: the caller gave up, or it is too late."""
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
    found = session.scalar(select(Gate.state).where(Gate.job_id == job_id))
    return GateState(found) if found is not None else None


def request_release(session: Session, job_id: str) -> None:
    """Asked for twice, it is asked for once."""
    session.execute(
        update(Gate)
        .where(Gate.job_id == job_id, Gate.state.in_([GateState.opening, GateState.open]))
        .values(state=GateState.releasing, release_requested_at=database_now(session))
    )


def close(session: Session, job_id: str) -> Gate | None:
    """The row as it stands from now on; None: this job never had one."""
    gate = session.get(Gate, job_id, with_for_update=True)
    if gate is not None:
        gate.state = GateState.closed
    return gate


def close_all(session: Session, job_ids: Collection[str]) -> None:
    """Of jobs that will never run."""
    session.execute(
        update(Gate).where(Gate.job_id.in_(job_ids)).values(state=GateState.closed).execution_options(synchronize_session=False)
    )


def close_of_domain(session: Session, domain_id: str) -> None:
    """Its guest was thawed: what held it frozen, or was about to say that it does, holds nothing any more."""
    in_window = select(Job.id).where(Job.domain_id == domain_id, Job.state == JobState.running, Job.phase == PhaseName.freeze)
    session.execute(
        update(Gate)
        .where(Gate.job_id.in_(in_window), Gate.state.in_([GateState.opening, GateState.open]))
        .values(state=GateState.closed)
        .execution_options(synchronize_session=False)
    )


def close_after_death(session: Session, job: Job) -> dict[str, Any]:
    """The worker died and the guest was looked at; answers the columns of the job."""
    gate = close(session, job.id)
    judgement = worker_died(was_opened=gate is not None and gate.opened_at is not None)
    return {
        "verdict": judgement.verdict.value,
        "verdict_reasons": judgement.as_documents(),
        "result": result_document(gate, QuiesceRequest.from_document(job.request).freeze.hold_limit_ms, held=False),
    }


def result_document(gate: Gate | None, hold_budget_ms: int | None, *, held: bool) -> dict[str, Any]:
    """`result` of the job. `gate` None: it never opened."""
    return {
        "opened_at": rfc3339(gate.opened_at) if gate and gate.opened_at else None,
        "released_at": rfc3339(gate.release_requested_at) if gate and gate.release_requested_at else None,
        "hold_budget_ms": hold_budget_ms,
        "held": held,
    }
