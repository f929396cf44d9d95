"""Adding a job to the queue, once for each idempotency key."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Job, JobLabel
from service.errors import IdempotencyMismatch
from service.model.kinds import JobKind
from service.model.lifecycle import JobState
from service.records.next_job import as_sql


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
    """`created` False: the job is the one that an earlier request with the same key made."""

    job: Job
    created: bool


def enqueue(session: Session, new: NewJob, *, now: datetime | None = None) -> Enqueued:
    """`now`: by the clock of the database, where the caller has just read it. Raises IdempotencyMismatch when the key was used for
    another request."""
    if new.idempotency_key is None:
        return Enqueued(_insert(session, new, now), created=True)
    earlier = _by_key(session, new)
    if earlier is None:
        try:
            with session.begin_nested():
                return Enqueued(_insert(session, new, now), created=True)
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


def _insert(session: Session, new: NewJob, now: datetime | None) -> Job:
    now = now or database_now(session)
    job = Job(
        id=str(uuid4()),
        kind=new.kind,
        state=JobState.queued.value,
        domain_id=new.domain_id,
        domain_name=new.domain_name,
        host_id=new.host_id,
        created_at=now,
        run_after=now + timedelta(seconds=new.pause_s),
        updated_at=now,
        attempt=0,
        max_attempts=new.max_attempts,
        cancel_requested=False,
        request=new.request,
        labels=new.labels,
        phases=[],
        verdict_reasons=[],
        retry_of=new.retry_of,
        token_id=new.token_id,
        idempotency_key=new.idempotency_key,
        idempotency_digest=new.idempotency_digest,
    )
    session.add(job)
    session.flush()
    if new.labels:
        rows = [{"key": key, "value": value, "created_at": now, "job_id": job.id} for key, value in new.labels.items()]
        session.execute(insert(JobLabel), rows)
    return job


def waiting(session: Session, host_id: str, domain_id: str, most: int) -> tuple[int, datetime]:
    """How many jobs of the domain wait, thaws aside and counted up to `most`; and the time, which is needed next: in one statement."""
    rows = select(Job.id).where(
        Job.host_id == host_id, Job.domain_id == domain_id, Job.state == as_sql(JobState.queued), Job.kind != as_sql(JobKind.thaw)
    )
    count = select(func.count()).select_from(rows.limit(most).subquery()).scalar_subquery()
    if session.get_bind().dialect.name != "postgresql":
        return session.scalar(select(count)) or 0, database_now(session)
    found, now = session.execute(select(count, func.clock_timestamp())).one()
    return found, now.astimezone(UTC)
