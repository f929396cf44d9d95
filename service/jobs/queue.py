"""The queue: the only code that claims jobs and lets go of them (docs/decisions says why a table is the queue).

Two rules hold everything together. The database is the referee: a partial unique index refuses a second running
job of a domain, whatever this code does. And every write of a running job carries the token of its lease, so a
worker that was thought dead cannot overwrite what happened since.

Callers commit, and claim at most one job per transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Row, ScalarSelect, and_, func, insert, literal, null, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.engine import database_now, take_turn
from service.db.tables import Job, JobLabel
from service.errors import CancelRefused, DomainQueueFull, IdempotencyMismatch, JobCancelled, JobNotFound, LeaseLost
from service.jobs import slots
from service.jobs.next_job import CLOCK_TOLERANCE, NextJob, as_sql
from service.jobs.slots import ensure_slots
from service.model.lifecycle import FINAL_STATES, JobKind, JobState, may_move

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
    "next_kind",
    "note_interrupted",
    "release_expired",
    "renew",
    "request_cancel",
    "resolve_interrupted",
    "write",
]

#: What only this module writes.
OWN_COLUMNS = frozenset(
    {"id", "kind", "state", "domain_id", "domain_name", "host_id", "created_at", "started_at", "finished_at", "updated_at"}
    | {"attempt", "max_attempts", "lease_token", "lease_until", "lease_owner", "cancel_requested"}
    | {"token_id", "idempotency_key", "idempotency_digest"}
)


@dataclass(frozen=True)
class NewJob:
    """What is asked for. `idempotency_key` needs `token_id` and `idempotency_digest` beside it."""

    kind: str
    domain_id: str
    domain_name: str
    host_id: str
    request: dict[str, Any]
    labels: dict[str, str]
    max_attempts: int = 3
    #: How long after it was asked for it may begin, by the clock of the database.
    pause_s: float = 0.0
    token_id: str | None = None
    idempotency_key: str | None = None
    idempotency_digest: str | None = None
    retry_of: str | None = None

    def __post_init__(self) -> None:
        if self.idempotency_key is not None and (self.token_id is None or self.idempotency_digest is None):
            raise ValueError("an idempotency key counts for one token and one body: give token_id and idempotency_digest")


@dataclass(frozen=True)
class Enqueued:
    """`created` False: the job is the one that an earlier request with the same key made, and nothing was asked of its row."""

    job: Job
    created: bool
    answer: str | None = None


@dataclass(frozen=True)
class Claim:
    """A job and the right to run it, for as long as the lease is renewed. `intent` and `phases` are of earlier attempts."""

    job_id: str
    lease_token: str
    kind: str
    domain_id: str
    domain_name: str
    host_id: str
    request: dict[str, Any]
    labels: dict[str, Any]
    attempt: int
    max_attempts: int
    intent: dict[str, Any] | None
    phases: list[Any]


# --- adding ---------------------------------------------------------------------------------------


def enqueue(
    session: Session,
    new: NewJob,
    *,
    queue_limit: int | None = None,
    answer: ColumnElement[str] | None = None,
    now: datetime | None = None,
) -> Enqueued:
    """`queue_limit`: the new job is refused where so many of its domain wait already, thaws aside. `answer`: what to read from the new row.
    `now`: for tests.

    Raises IdempotencyMismatch when the key was used for another request, and DomainQueueFull.
    """
    if queue_limit is not None:
        # Whoever counts is alone with the domain until the new row is committed: else two creates count the same rows.
        now = take_turn(session, f"queue:{new.host_id}:{new.domain_id}")
    now = now or database_now(session)
    if new.idempotency_key is None:
        return _insert(session, new, now, queue_limit, answer)
    earlier = _by_key(session, new)
    if earlier is None:
        try:
            with session.begin_nested():
                return _insert(session, new, now, queue_limit, answer)
        except IntegrityError:
            # The same request came twice at once and the other one was first.
            earlier = _by_key(session, new)
            if earlier is None:
                raise
    if earlier.idempotency_digest != new.idempotency_digest:
        raise IdempotencyMismatch(key=new.idempotency_key, job_id=earlier.id)
    return Enqueued(earlier, created=False)


def _by_key(session: Session, new: NewJob) -> Job | None:
    return session.scalar(select(Job).where(Job.token_id == new.token_id, Job.idempotency_key == new.idempotency_key))


def _insert(session: Session, new: NewJob, now: datetime, limit: int | None, answer: ColumnElement[str] | None) -> Enqueued:
    """Raises DomainQueueFull."""
    values = _first_values(new, now)
    if limit is None:
        statement = insert(Job).values(values)
    else:
        row = select(*(literal(value, Job.__table__.c[name].type) for name, value in values.items()))
        statement = insert(Job).from_select(list(values), row.where(_waiting(new, limit) < limit))
    inserted = session.execute(statement.returning(Job, answer if answer is not None else null())).first()
    if inserted is None:
        raise DomainQueueFull(domain=new.domain_name, limit=limit)
    job, answered = inserted
    if new.labels:
        rows = [{"key": key, "value": value, "created_at": now, "job_id": job.id} for key, value in new.labels.items()]
        session.execute(insert(JobLabel), rows)
    return Enqueued(job, created=True, answer=answered)


def _first_values(new: NewJob, now: datetime) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "kind": new.kind,
        "state": JobState.queued.value,
        "domain_id": new.domain_id,
        "domain_name": new.domain_name,
        "host_id": new.host_id,
        "created_at": now,
        "run_after": now + timedelta(seconds=new.pause_s),
        "updated_at": now,
        "attempt": 0,
        "max_attempts": new.max_attempts,
        "cancel_requested": False,
        "request": new.request,
        "labels": new.labels,
        "phases": [],
        "verdict_reasons": [],
        "retry_of": new.retry_of,
        "token_id": new.token_id,
        "idempotency_key": new.idempotency_key,
        "idempotency_digest": new.idempotency_digest,
    }


def _waiting(new: NewJob, most: int) -> ScalarSelect[int]:
    """How many jobs of the domain wait, thaws aside and counted up to `most`."""
    queued = and_(Job.state == as_sql(JobState.queued), Job.kind != as_sql(JobKind.thaw))
    rows = select(Job.id).where(Job.host_id == new.host_id, Job.domain_id == new.domain_id, queued)
    return select(func.count()).select_from(rows.limit(most).subquery()).scalar_subquery()


# --- claiming -------------------------------------------------------------------------------------


def claim(
    session: Session,
    host_id: str,
    owner: str,
    lease_seconds: float,
    *,
    only_kinds: Collection[str] | None = None,
    now: datetime | None = None,
) -> Claim | None:
    """Take the next job of this host that may run: a thaw first, then the one that is due for longest. `now`: for tests.

    None: there is none, or another worker is just taking what there was; ask again at the next wake-up.
    """
    now = now or database_now(session)
    search = NextJob(host_id, now, only_kinds)
    while (found := search.locked(session)) is not None:
        try:
            with session.begin_nested():
                if found.kind != JobKind.thaw:
                    slots.take(session, found.id, slots.host_resource(host_id))
                return _start(session, found, owner, now + timedelta(seconds=lease_seconds), now)
        except slots.SlotGone:
            return None
        except IntegrityError:
            # The index refused a second running job of the domain.
            search.domains.add(found.domain_id)
    return None


def next_kind(session: Session, host_id: str, *, only_kinds: Collection[str] | None = None) -> str | None:
    """The kind of the job that `claim` would take; None: there is none. It only reads, so that looking keeps nobody from writing."""
    return NextJob(host_id, database_now(session), only_kinds).kind(session)


def _start(session: Session, job: Row[Any], owner: str, lease_until: datetime, now: datetime) -> Claim:
    token = str(uuid4())
    session.execute(
        update(Job)
        .where(Job.id == job.id)
        .values(
            state=JobState.running.value,
            lease_token=token,
            lease_until=lease_until,
            lease_owner=owner,
            started_at=job.started_at or now,
            updated_at=now,
            attempt=job.attempt + 1,
            phase=None,
        )
    )
    return Claim(
        job_id=job.id,
        lease_token=token,
        kind=job.kind,
        domain_id=job.domain_id,
        domain_name=job.domain_name,
        host_id=job.host_id,
        request=job.request,
        labels=job.labels,
        attempt=job.attempt + 1,
        max_attempts=job.max_attempts,
        intent=job.intent,
        phases=job.phases,
    )


# --- while it runs --------------------------------------------------------------------------------


def renew(session: Session, job_id: str, lease_token: str, lease_seconds: float, *, now: datetime | None = None) -> bool:
    """Hold the job for another `lease_seconds`; answers whether somebody wants it cancelled. Raises LeaseLost."""
    until = (now or database_now(session)) + timedelta(seconds=lease_seconds)
    renewed = update(Job).where(_held(job_id, lease_token)).values(lease_until=until).returning(Job.cancel_requested)
    row = session.execute(renewed).first()
    if row is None:
        raise LeaseLost(job_id=job_id)
    return bool(row.cancel_requested)


def write(session: Session, job_id: str, lease_token: str, values: dict[str, Any]) -> None:
    """Record what the job is doing. Raises LeaseLost; nothing is written then."""
    _refuse_own_columns(values)
    _write_held(session, job_id, lease_token, {**values, "updated_at": database_now(session)})


def finish(session: Session, job_id: str, lease_token: str, state: JobState, values: dict[str, Any]) -> None:
    """End the job and free its slots. Raises LeaseLost; nothing is written then."""
    if state not in FINAL_STATES:
        raise ValueError(f"a job cannot finish as {state}")
    _refuse_own_columns(values)
    now = database_now(session)
    _write_held(session, job_id, lease_token, {**values, **_NO_LEASE, "state": state.value, "finished_at": now, "updated_at": now})
    slots.free(session, [job_id])


_NO_LEASE = {"lease_token": None, "lease_until": None, "lease_owner": None}


def _held(job_id: str, lease_token: str) -> ColumnElement[bool]:
    return and_(Job.id == job_id, Job.lease_token == lease_token, Job.state == JobState.running.value)


def _write_held(session: Session, job_id: str, lease_token: str, values: dict[str, Any]) -> None:
    if session.scalar(update(Job).where(_held(job_id, lease_token)).values(values).returning(Job.id)) is None:
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
    `live`: jobs that the caller still runs itself; it was only late with their leases.
    `longest_s`: no lease is given for longer; one that ends later was given by a clock that was ahead.
    """
    now = now or database_now(session)
    lost = update(Job).where(Job.host_id == host_id, Job.state == as_sql(JobState.running))
    if not all_running:
        has_ended = Job.lease_until < now
        if longest_s is not None:
            has_ended = or_(has_ended, Job.lease_until > now + timedelta(seconds=longest_s) + CLOCK_TOLERANCE)
        lost = lost.where(has_ended)
    if live:
        lost = lost.where(Job.id.not_in(live))
    released = session.scalars(lost.values(**_NO_LEASE, state=JobState.interrupted.value, updated_at=now).returning(Job.id)).all()
    slots.free(session, released)
    return list(released)


def interrupted(session: Session, host_id: str) -> list[Job]:
    waiting = select(Job).where(Job.host_id == host_id, Job.state == as_sql(JobState.interrupted))
    return list(session.scalars(waiting.order_by(Job.run_after, Job.id)))


def busy_domains(session: Session, domain_ids: Collection[str]) -> frozenset[str]:
    """Those of which a job runs, or waits for recovery."""
    at_work = Job.state.in_([as_sql(JobState.running), as_sql(JobState.interrupted)])
    return frozenset(session.scalars(select(Job.domain_id).where(Job.domain_id.in_(domain_ids), at_work))) if domain_ids else frozenset()


def note_interrupted(session: Session, job_id: str, values: dict[str, Any]) -> None:
    """Record what an interrupted job waits for. Raises LeaseLost when it is no longer interrupted; nothing is written then."""
    _refuse_own_columns(values)
    noted = update(Job).where(Job.id == job_id, Job.state == JobState.interrupted.value)
    if session.scalar(noted.values({**values, "updated_at": database_now(session)}).returning(Job.id)) is None:
        raise LeaseLost(job_id=job_id)


def resolve_interrupted(session: Session, job_id: str, to: JobState, values: dict[str, Any]) -> Job:
    """What recovery decided. A cancel that came while it decided wins over another attempt: look at the answer's state.

    Raises JobNotFound, and LeaseLost when the job is no longer interrupted.
    """
    if not may_move(JobState.interrupted, to):
        raise ValueError(f"an interrupted job cannot become {to}")
    _refuse_own_columns(values)
    job = _locked(session, job_id)
    if job.state != JobState.interrupted:
        raise LeaseLost(job_id=job_id)
    if to is JobState.queued and job.cancel_requested:
        to, values = JobState.cancelled, {**values, "error": JobCancelled(phase="the next attempt").as_document()}
    for column, value in values.items():
        setattr(job, column, value)
    _move(job, to, database_now(session))
    session.flush()
    return job


# --- cancelling -----------------------------------------------------------------------------------


def request_cancel(session: Session, job_id: str) -> Job:
    """A queued job is cancelled at once, a running one at its next safe point. Raises JobNotFound, CancelRefused."""
    job = _locked(session, job_id)
    now = database_now(session)
    if job.state == JobState.queued:
        _move(job, JobState.cancelled, now)
        job.error = JobCancelled(phase="start").as_document()
    elif job.state in FINAL_STATES:
        raise CancelRefused(job_id=job_id, state=job.state, reason="it has already ended")
    else:
        job.cancel_requested = True
        job.updated_at = now
    session.flush()
    return job


def cancel_queued(session: Session, host_id: str, error: dict[str, Any]) -> list[str]:
    """What waits for a host that is no more; answers the ids."""
    now = database_now(session)
    waiting = update(Job).where(Job.host_id == host_id, Job.state == as_sql(JobState.queued))
    ended = {"state": JobState.cancelled.value, "error": error, "finished_at": now, "updated_at": now}
    return list(session.scalars(waiting.values(ended).returning(Job.id)))


def is_cancel_requested(session: Session, job_id: str) -> bool:
    """Whoever asks for it later waits until this transaction is over."""
    return bool(session.scalar(select(Job.cancel_requested).where(Job.id == job_id).with_for_update()))


def _locked(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise JobNotFound(job_id=job_id)
    return job


def _move(job: Job, to: JobState, now: datetime) -> None:
    job.state = to.value
    job.updated_at = now
    if to in FINAL_STATES:
        job.finished_at = now
