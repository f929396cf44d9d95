"""The queue: the only code that claims and releases jobs (docs/decisions says why a table is the queue).

`new_job`, `claim` and `moves` add, claim and move jobs. Callers import all functions from here.

Three rules hold everything together:

- The database decides: a partial unique index refuses a second running job of a domain, whatever this code does.
- Every write of a running job carries the token of its lease, so a worker that was thought dead cannot overwrite newer values.
- Only `move` changes `state`.

Callers commit, and claim at most one job per transaction.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from service.db import documents
from service.db.base import table_of
from service.db.engine import database_now
from service.db.tables import Job
from service.errors import CancelRefused, JobCancelled, JobNotFound, LeaseLost
from service.model.lifecycle import FINAL_STATES, JobState
from service.records.claim import Claim, claim, next_kind
from service.records.moves import facts_of, move
from service.records.new_job import Enqueued, NewJob, enqueue
from service.records.next_job import CLOCK_TOLERANCE, as_sql
from service.records.slots import ensure_slots

__all__ = [
    "Claim",
    "Enqueued",
    "NewJob",
    "busy_domains",
    "cancel_queued",
    "claim",
    "enqueue",
    "ensure_slots",
    "finish",
    "interrupted",
    "is_cancel_requested",
    "move",
    "next_kind",
    "note_interrupted",
    "release_expired",
    "renew",
    "request_cancel",
    "resolve_interrupted",
    "write",
]

#: The columns that only this module writes.
OWN_COLUMNS = frozenset(
    {"id", "kind", "state", "domain_id", "domain_name", "host_id", "created_at", "started_at", "finished_at", "updated_at"}
    | {"attempt", "max_attempts", "lease_token", "lease_until", "lease_owner", "cancel_requested"}
    | {"token_id", "idempotency_key", "idempotency_digest"}
)

_JOBS = table_of(Job)


# --- while it runs --------------------------------------------------------------------------------


def renew(session: Session, job_id: str, lease_token: str, lease_seconds: float, *, now: datetime | None = None) -> bool:
    """Hold the job for another `lease_seconds`. Returns whether a caller asked to cancel the job. Raises LeaseLost."""
    until = (now or database_now(session)) + timedelta(seconds=lease_seconds)
    renewed = update(Job).where(_held(job_id, lease_token)).values(lease_until=until).returning(Job.cancel_requested)
    row = session.execute(renewed).first()
    if row is None:
        raise LeaseLost(job_id=job_id)
    return bool(row.cancel_requested)


def write(session: Session, job_id: str, lease_token: str, values: dict[str, Any]) -> None:
    """Record what the job does. Raises LeaseLost; nothing is written then."""
    _refuse_own_columns(values)
    _write_held(session, job_id, lease_token, {**values, "updated_at": database_now(session)})


def finish(session: Session, job_id: str, lease_token: str, state: JobState, values: dict[str, Any]) -> None:
    """End the job and free its slots. Raises LeaseLost; nothing is written then."""
    if state not in FINAL_STATES:
        raise ValueError(f"a job cannot finish as {state}")
    _refuse_own_columns(values)
    change = update(_JOBS).where(_held(job_id, lease_token)).values(values)
    if not move(session, change, JobState.running, state, now=database_now(session), facts=facts_of(values)):
        raise LeaseLost(job_id=job_id)


def _held(job_id: str, lease_token: str) -> ColumnElement[bool]:
    return and_(Job.id == job_id, Job.lease_token == lease_token, Job.state == JobState.running.value)


def _write_held(session: Session, job_id: str, lease_token: str, values: dict[str, Any]) -> None:
    if not documents.change_jobs(session, update(_JOBS).where(_held(job_id, lease_token)).values(values)):
        raise LeaseLost(job_id=job_id)


def _refuse_own_columns(values: dict[str, Any]) -> None:
    if own := OWN_COLUMNS & values.keys():
        raise ValueError(f"only the queue writes {sorted(own)}")


# --- when a worker died ---------------------------------------------------------------------------


def release_expired(
    session: Session,
    host_id: str,
    *,
    all_running: bool = False,
    live: Collection[str] = (),
    longest_s: float | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Running jobs whose lease ran out become `interrupted`: recovery looks at the guest before anything runs again.

    `all_running`: every running job of the host, for a worker that starts and holds the host's lock.
    `live`: jobs that the caller still runs itself, and whose leases it renewed too late.
    `longest_s`: no lease is given for longer. A lease that ends later was given by a clock that was ahead.
    """
    now = now or database_now(session)
    lost = update(_JOBS).where(Job.host_id == host_id)
    if not all_running:
        has_ended = Job.lease_until < now
        if longest_s is not None:
            has_ended = or_(has_ended, Job.lease_until > now + timedelta(seconds=longest_s) + CLOCK_TOLERANCE)
        lost = lost.where(has_ended)
    if live:
        lost = lost.where(Job.id.not_in(live))
    return move(session, lost, JobState.running, JobState.interrupted, now=now)


def interrupted(session: Session, host_id: str) -> list[Job]:
    waiting = select(Job).where(Job.host_id == host_id, Job.state == as_sql(JobState.interrupted))
    return list(session.scalars(waiting.order_by(Job.run_after, Job.id)))


def busy_domains(session: Session, domain_ids: Collection[str]) -> frozenset[str]:
    """The domains of which a job runs, or waits for recovery."""
    at_work = Job.state.in_([as_sql(JobState.running), as_sql(JobState.interrupted)])
    return frozenset(session.scalars(select(Job.domain_id).where(Job.domain_id.in_(domain_ids), at_work))) if domain_ids else frozenset()


def note_interrupted(session: Session, job_id: str, values: dict[str, Any]) -> None:
    """Record what an interrupted job waits for. Raises LeaseLost when it is no longer interrupted; nothing is written then."""
    _refuse_own_columns(values)
    noted = update(_JOBS).where(Job.id == job_id, Job.state == JobState.interrupted.value)
    if not documents.change_jobs(session, noted.values({**values, "updated_at": database_now(session)})):
        raise LeaseLost(job_id=job_id)


def resolve_interrupted(session: Session, job_id: str, to: JobState, values: dict[str, Any]) -> JobState:
    """Write what recovery decided. Returns the new state: a cancel request that came meanwhile prevents another attempt.

    If something of this attempt is left on the guest (`intent`), another attempt is needed to undo it.

    Raises JobNotFound, and LeaseLost when the job is no longer interrupted.
    """
    _refuse_own_columns(values)
    job = _locked(session, job_id)
    if job.state != JobState.interrupted:
        raise LeaseLost(job_id=job_id)
    if to is JobState.queued and job.cancel_requested and values.get("intent") is None:
        to, values = JobState.cancelled, {**values, "error": JobCancelled(phase="the next attempt").as_document()}
    change = update(_JOBS).where(_JOBS.c.id == job_id).values(values)
    move(session, change, JobState.interrupted, to, now=database_now(session), facts=facts_of(values))
    return to


# --- cancelling -----------------------------------------------------------------------------------


def request_cancel(session: Session, job_id: str) -> JobState:
    """Cancel a queued job at once, and a running job at its next safe point. Returns the state that the job has now.

    A queued job of which an earlier attempt left something on the guest (`intent`) begins once more, and undoes that.

    Raises JobNotFound, CancelRefused.
    """
    job = _locked(session, job_id)
    state, now = JobState(job.state), database_now(session)
    if state in FINAL_STATES:
        raise CancelRefused(job_id=job_id, state=job.state, reason="the job has already ended")
    change = update(_JOBS).where(_JOBS.c.id == job_id)
    if state is JobState.queued and job.intent is None:
        values = {"error": JobCancelled(phase="start").as_document()}
        move(session, change.values(values), JobState.queued, JobState.cancelled, now=now, facts=facts_of(values))
        return JobState.cancelled
    documents.change_jobs(session, change.values(cancel_requested=True, updated_at=now))
    return state


def cancel_queued(session: Session, host_id: str, error: dict[str, Any]) -> list[str]:
    """Cancel the jobs that wait for a forgotten host. Returns their ids."""
    values = {"error": error}
    change = update(_JOBS).where(Job.host_id == host_id).values(values)
    return move(session, change, JobState.queued, JobState.cancelled, now=database_now(session), facts=facts_of(values))


def is_cancel_requested(session: Session, job_id: str) -> bool:
    """Whether a caller asked to cancel the job. A later request waits until this transaction is over."""
    return bool(session.scalar(select(Job.cancel_requested).where(Job.id == job_id).with_for_update()))


def _locked(session: Session, job_id: str) -> Any:
    job = session.execute(select(Job.state, Job.cancel_requested, Job.intent).where(Job.id == job_id).with_for_update()).first()
    if job is None:
        raise JobNotFound(job_id=job_id)
    return job
