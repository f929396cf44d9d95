"""Finds the job of a host that may run next.

SQL checks whether a job may run, so that a job that cannot run yet does not stop the jobs behind it. Of each lock only the job that is
due first is looked at, so that a long queue costs no more than a short queue.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, exists, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from service.db.tables import Job
from service.model import kinds
from service.model.kinds import Kind, Locks
from service.model.lifecycle import JobState
from service.records import policy_blackouts, policy_limits, slots
from service.records.slots import Permits

CLOCK_TOLERANCE = timedelta(minutes=1)
"""A time that is further in the future than this was written by a clock that was ahead, and is ignored."""


@dataclass
class NextJob:
    """One search. `locks`, `jobs`: what another worker took after we read it. Each round adds one, and skips these."""

    host_id: str
    now: datetime
    only_kinds: Collection[str] | None = None
    locks: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)

    def kind(self, session: Session) -> str | None:
        """The kind of the next job. None: no job may run. This only reads."""
        job = self._first(session)
        return job.kind if job is not None else None

    def locked(self, session: Session) -> Row[Any] | None:
        """The next job, locked: no other worker can take it until the end of the transaction."""
        while (candidate := self._first(session)) is not None:
            job = session.execute(_LOCKED, {"id": candidate.id}).first()
            if job is not None:
                return job
            # Another worker is taking this job now, or a caller cancels it.
            self.jobs.add(candidate.id)
        return None

    def _first(self, session: Session) -> Any:
        # A thaw helps a guest that may be frozen, so it waits for no lock, no permit and no other job.
        urgent = self._without_lock(session, [kind for kind in self._kinds() if kind.is_urgent])
        if urgent is not None:
            return urgent
        permits = replace(slots.permits(session, self.host_id), in_blackout=policy_blackouts.in_blackout(session, self.now))
        may_begin = [kind for kind in self._kinds() if kind.lane in permits.lanes]
        candidates = [
            self._with_lock(session, [kind for kind in may_begin if kind.locks is not Locks.nothing], permits),
            self._without_lock(session, [kind for kind in may_begin if kind.locks is Locks.nothing], permits),
        ]
        return min((job for job in candidates if job is not None), key=lambda job: (job.run_after, job.id), default=None)

    def _kinds(self) -> list[Kind]:
        """The kinds that this worker knows. Jobs of newer kinds wait for a newer worker."""
        return [kind for kind in kinds.KINDS.values() if self.only_kinds is None or kind.name in self.only_kinds]

    def _without_lock(self, session: Session, of_kinds: list[Kind], permits: Permits | None = None) -> Any:
        if not of_kinds:
            return None
        further = [*self._not_full(Job, of_kinds, permits), *([Job.id.not_in(self.jobs)] if self.jobs else [])]
        return session.execute(_NEXT_WITHOUT_LOCK.where(*further) if further else _NEXT_WITHOUT_LOCK, self._parameters(of_kinds)).first()

    def _with_lock(self, session: Session, of_kinds: list[Kind], permits: Permits) -> Any:
        if not of_kinds:
            return None
        head = aliased(Job)
        further = self._not_full(head, of_kinds, permits)
        if self.jobs or self.locks:
            further += [head.id.not_in(self.jobs), or_(head.lock_key.is_(None), head.lock_key.not_in(self.locks))]
        return session.execute(_first_of_each_lock(head, *further) if further else _NEXT_WITH_LOCK, self._parameters(of_kinds)).first()

    @staticmethod
    def _not_full(job: Any, of_kinds: list[Kind], permits: Permits | None) -> list[ColumnElement[bool]]:
        """Jobs wait if their repository has no free permit in their lane, or if their policy has none, or has a blackout."""
        further = []
        for lane, repositories in (permits.full if permits is not None else {}).items():
            names = [kind.name for kind in of_kinds if kind.lane is lane]
            further.append(or_(job.repository_id.is_(None), job.repository_id.not_in(repositories), job.kind.not_in(names)))
        if permits is not None and permits.full_of_policies:
            further += policy_limits.have_permits(job, of_kinds, permits.full_of_policies)
        if permits is not None and permits.in_blackout:
            further.append(policy_blackouts.may_begin(job, permits.in_blackout))
        return further

    def _parameters(self, of_kinds: list[Kind]) -> dict[str, Any]:
        names = [kind.name for kind in of_kinds]
        return {"host": self.host_id, "now": self.now, "not_yet": self.now + CLOCK_TOLERANCE, "kinds": names}


def _first_of_each_lock(head: Any, *further: ColumnElement[bool]) -> Select[Any]:
    """The job that has been due for the longest time, among the first due job of each lock. `further`: more conditions on `head`.

    The recursion walks the index from lock to lock. SQLite and PostgreSQL do not do that by themselves.
    """
    first, other = aliased(Job), aliased(Job)
    beginning = select(func.min(first.lock_key)).where(_is_queued(first)).scalar_subquery()
    locks = select(beginning.label("key")).cte("locks", recursive=True)
    following = select(func.min(other.lock_key)).where(_is_queued(other), other.lock_key > locks.c.key).scalar_subquery()
    locks = locks.union_all(select(following).where(locks.c.key.is_not(None)))

    def of_head(column: Any) -> ColumnElement[Any]:
        due = select(column).where(_is_queued(head), head.lock_key == locks.c.key, _is_wanted(head), *further)
        return due.order_by(head.run_after, head.id).limit(1).scalar_subquery()

    columns = [of_head(column).label(column.key) for column in (head.id, head.kind, head.run_after)]
    heads = select(*columns).where(locks.c.key.is_not(None), ~_is_busy(locks.c.key)).subquery()
    return select(heads).where(heads.c.id.is_not(None)).order_by(heads.c.run_after, heads.c.id).limit(1)


def _is_queued(job: Any) -> ColumnElement[bool]:
    return and_(job.host_id == bindparam("host"), job.state == as_sql(JobState.queued), job.lock_key.is_not(None))


def _is_wanted(job: Any) -> ColumnElement[bool]:
    """The job's kind may begin, and the job is due.

    `run_after` is ignored for a job that was created without a pause, and for a job that was created by a clock that was ahead.
    """
    dateless = or_(job.run_after <= job.created_at, job.created_at > bindparam("not_yet", type_=job.created_at.type))
    is_due = or_(job.run_after <= bindparam("now", type_=job.run_after.type), dateless)
    return and_(job.kind.in_(bindparam("kinds", expanding=True)), _may_begin(job), is_due)


def _may_begin(job: Any) -> ColumnElement[bool]:
    """A cancelled job begins only to undo what an earlier attempt left on its guest."""
    return or_(job.cancel_requested.is_(False), job.intent.is_not(None))


def _is_busy(lock_key: ColumnElement[str]) -> ColumnElement[bool]:
    other = aliased(Job)
    return exists().where(other.lock_key == lock_key, other.state.in_([as_sql(JobState.running), as_sql(JobState.interrupted)]))


def as_sql(value: JobState) -> ColumnElement[str]:
    """The value as a part of the SQL text. A database uses a partial index only if it sees the condition when it plans the statement."""
    return literal(value.value, literal_execute=True)


# Built once: every idle worker asks this once a second.
_NEXT_WITHOUT_LOCK = (
    select(Job.id, Job.kind, Job.run_after)
    .where(Job.host_id == bindparam("host"), Job.state == as_sql(JobState.queued), Job.lock_key.is_(None), _is_wanted(Job))
    .order_by(Job.run_after, Job.id)
    .limit(1)
)
_NEXT_WITH_LOCK = _first_of_each_lock(aliased(Job))
_COLUMNS = (Job.id, Job.kind, Job.domain_id, Job.domain_name, Job.host_id, Job.request, Job.labels, Job.lock_key, Job.repository_id)
_OF_ATTEMPTS = (Job.attempt, Job.max_attempts, Job.cancel_requested, Job.intent, Job.phases)
_LOCKED = (
    select(*_COLUMNS, *_OF_ATTEMPTS, Job.started_at, Job.request_version, Job.shortfall_try)
    .where(Job.id == bindparam("id"), Job.state == as_sql(JobState.queued), _may_begin(Job))
    .with_for_update(skip_locked=True)
)
