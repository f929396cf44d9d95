"""Adding a job to the queue, once for each idempotency key."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ScalarSelect, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.engine import database_now, take_turn
from service.db.tables import Job, JobDomain, JobLabel, RecoveryPoint
from service.errors import DomainQueueFull, IdempotencyMismatch
from service.model import requests
from service.model.kinds import kind_of
from service.model.lifecycle import JobState
from service.records import moves
from service.records.locks import key_of
from service.records.next_job import as_sql


@dataclass(frozen=True)
class NewJob:
    """What is asked for. `idempotency_key` needs `token_id` and `idempotency_digest` beside it."""

    kind: str
    domain_id: str | None
    domain_name: str | None
    host_id: str
    request: dict[str, Any]
    labels: dict[str, str]
    #: None: as often as the table of kinds says.
    max_attempts: int | None = None
    #: How long after it was asked for it may begin, by the clock of the database.
    pause_s: float = 0.0
    token_id: str | None = None
    idempotency_key: str | None = None
    idempotency_digest: str | None = None
    retry_of: str | None = None
    request_version: int = requests.VERSION
    shortfall_try: int = 0
    point_id: str | None = None
    repository_id: str | None = None
    copy_id: str | None = None

    def __post_init__(self) -> None:
        if self.idempotency_key is not None and (self.token_id is None or self.idempotency_digest is None):
            raise ValueError("an idempotency key counts for one token and one body: give token_id and idempotency_digest")

    @property
    def lock_key(self) -> str | None:
        """None: it locks nothing. Raises ValueError where it does not name what jobs of its kind lock."""
        named = {"domain_id": self.domain_id, "point_id": self.point_id, "repository_id": self.repository_id}
        return key_of(self.kind, **named, copy_id=self.copy_id)


@dataclass(frozen=True)
class Enqueued:
    """`created` False: the job is the one that an earlier request with the same key made."""

    job_id: str
    run_after: datetime
    created: bool
    #: As the API says it; None: the job was made before.
    document: str | None = None


def enqueue(session: Session, new: NewJob, *, queue_limit: int | None = None, now: datetime | None = None) -> Enqueued:
    """`queue_limit`: the new job is refused where so many wait already that lock the same. `now`: for tests.

    Raises IdempotencyMismatch when the key was used for another request, and DomainQueueFull.
    """
    if queue_limit is not None:
        # Only one transaction counts the jobs of a lock at a time. Otherwise two creates could count the same rows.
        now = take_turn(session, f"queue:{new.host_id}:{new.lock_key}")
    now = now or database_now(session)
    if new.idempotency_key is None:
        return _insert(session, new, now, queue_limit)
    earlier = _by_key(session, new)
    if earlier is None:
        try:
            with session.begin_nested():
                return _insert(session, new, now, queue_limit)
        except IntegrityError:
            # The same request came twice at once and the other one was first.
            earlier = _by_key(session, new)
            if earlier is None:
                raise
    if earlier.idempotency_digest != new.idempotency_digest:
        raise IdempotencyMismatch(key=new.idempotency_key, job_id=earlier.id)
    return Enqueued(earlier.id, earlier.run_after, created=False)


def _by_key(session: Session, new: NewJob) -> Any:
    columns = (Job.id, Job.run_after, Job.idempotency_digest)
    return session.execute(select(*columns).where(Job.token_id == new.token_id, Job.idempotency_key == new.idempotency_key)).first()


def _insert(session: Session, new: NewJob, now: datetime, limit: int | None) -> Enqueued:
    """Raises DomainQueueFull."""
    job_id, run_after = str(uuid4()), now + timedelta(seconds=new.pause_s)
    values: dict[str, Any] = {
        "id": job_id,
        "kind": new.kind,
        "domain_id": new.domain_id,
        "domain_name": new.domain_name,
        "host_id": new.host_id,
        "lock_key": new.lock_key,
        "repository_id": new.repository_id,
        "created_at": now,
        "run_after": run_after,
        "attempt": 0,
        "max_attempts": new.max_attempts if new.max_attempts is not None else kind_of(new.kind).attempts,
        "cancel_requested": False,
        "request": new.request,
        "request_version": new.request_version,
        "shortfall_try": new.shortfall_try,
        "labels": new.labels,
        "phases": [],
        "verdict_reasons": [],
        "retry_of": new.retry_of,
        "token_id": new.token_id,
        "idempotency_key": new.idempotency_key,
        "idempotency_digest": new.idempotency_digest,
    }
    facts = {"retry_of": new.retry_of} if new.retry_of is not None else None
    has_room = _waiting(new, limit) < limit if limit is not None else None
    document = moves.add(session, values, now=now, facts=facts, only_if=has_room)
    if document is None:
        raise DomainQueueFull(domain=new.domain_name or new.lock_key or new.host_id, limit=limit)
    if new.labels:
        rows = [{"key": key, "value": value, "created_at": now, "job_id": job_id} for key, value in new.labels.items()]
        session.execute(insert(JobLabel), rows)
    if new.domain_id is None:
        _note_domains(session, job_id, new.request, now)
    return Enqueued(job_id, run_after, created=True, document=document)


def _note_domains(session: Session, job_id: str, request: Mapping[str, Any], now: datetime) -> None:
    """A job that names points is found by their domains, also when the points are gone."""
    named = request.get("recovery_points") or [request.get("recovery_point")]
    of_points = select(RecoveryPoint.domain_id, func.max(RecoveryPoint.domain_name)).where(RecoveryPoint.id.in_(named))
    rows = session.execute(of_points.group_by(RecoveryPoint.domain_id)).all()
    with_name = {name: domain_id for domain_id, name in rows}
    if rows:
        same = {"job_id": job_id, "created_at": now}
        values = [{**same, "domain_id": each, "domain_name": name if with_name[name] == each else None} for each, name in rows]
        session.execute(insert(JobDomain), values)


def _waiting(new: NewJob, limit: int) -> ScalarSelect[int]:
    """How many jobs wait for the same lock, counted up to `limit`."""
    rows = select(Job.id).where(Job.host_id == new.host_id, Job.lock_key == new.lock_key, Job.state == as_sql(JobState.queued))
    return select(func.count()).select_from(rows.limit(limit).subquery()).scalar_subquery()
