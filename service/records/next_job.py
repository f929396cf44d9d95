"""Which job of a host may run next.

What stands in the way of a job is asked in SQL, so that a job that cannot run yet does not stop the ones behind it; and of each domain
only the job that is due first is looked at, so that a long queue costs no more than a short one.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, exists, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from service.db.tables import Job
from service.model.kinds import JobKind
from service.model.lifecycle import JobState
from service.records import slots

CLOCK_TOLERANCE = timedelta(minutes=1)
"""What was dated so much later than now was dated by a clock that was ahead."""


@dataclass
class NextJob:
    """One search. `domains`, `jobs`: what another worker took between our look and our try; each round adds one."""

    host_id: str
    now: datetime
    only_kinds: Collection[str] | None = None
    domains: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)

    def kind(self, session: Session) -> str | None:
        """None: there is none. Only reads."""
        found = self._first(session)
        return found.kind if found is not None else None

    def locked(self, session: Session) -> Row[Any] | None:
        """The job, which nobody else can take until the end of the transaction."""
        while (found := self._first(session)) is not None:
            job = session.execute(_LOCKED, {"id": found.id}).first()
            if job is not None:
                return job
            # Somebody is just taking it, or cancels it.
            self.jobs.add(found.id)
        return None

    def _first(self, session: Session) -> Any:
        here_and_now = {
            "host": self.host_id,
            "host_resource": slots.host_resource(self.host_id),
            "now": self.now,
            "not_yet": self.now + CLOCK_TOLERANCE,
            "kinds": list(self.only_kinds or []),
        }
        # A thaw helps a guest that somebody left frozen: it waits for no domain, no slot and no other job.
        if self.only_kinds is None or JobKind.thaw in self.only_kinds:
            thaws = _NEXT_THAW.where(Job.id.not_in(self.jobs)) if self.jobs else _NEXT_THAW
            thaw: Any = session.execute(thaws, here_and_now).first()
            if thaw is not None:
                return thaw
        if not session.scalar(_HOST_IS_FREE, here_and_now):
            return None
        return session.execute(self._others(), here_and_now).first()

    def _others(self) -> Select[Any]:
        if not (self.domains or self.jobs):
            return _NEXT_OTHER if self.only_kinds is None else _NEXT_OF_KINDS
        head = aliased(Job)
        further: list[ColumnElement[bool]] = [] if self.only_kinds is None else [head.kind.in_(self.only_kinds)]
        further += [head.id.not_in(self.jobs), head.domain_id.not_in(self.domains)]
        return _first_of_each_domain(head, *further)


def _first_of_each_domain(head: Any, *further: ColumnElement[bool]) -> Select[Any]:
    """Of the jobs that are due first in their domains, the one that is due for longest. `further`: what is asked of `head` besides.

    The index is walked from domain to domain: neither SQLite nor PostgreSQL does that unless told how.
    """
    first, other = aliased(Job), aliased(Job)
    beginning = select(func.min(first.domain_id)).where(_is_queued(first)).scalar_subquery()
    domains = select(beginning.label("id")).cte("domains", recursive=True)
    following = select(func.min(other.domain_id)).where(_is_queued(other), other.domain_id > domains.c.id).scalar_subquery()
    domains = domains.union_all(select(following).where(domains.c.id.is_not(None)))

    def of_head(column: Any) -> ColumnElement[Any]:
        due = select(column).where(_is_queued(head), head.domain_id == domains.c.id, _is_due(head), *further)
        return due.order_by(head.run_after, head.id).limit(1).scalar_subquery()

    columns = [of_head(column).label(column.key) for column in (head.id, head.kind, head.run_after)]
    heads = select(*columns).where(domains.c.id.is_not(None), ~_is_busy(domains.c.id)).subquery()
    return select(heads.c.id, heads.c.kind).where(heads.c.id.is_not(None)).order_by(heads.c.run_after, heads.c.id).limit(1)


def _is_queued(job: Any) -> ColumnElement[bool]:
    return and_(job.host_id == bindparam("host"), job.state == as_sql(JobState.queued), job.kind != as_sql(JobKind.thaw))


def _is_due(job: Any) -> ColumnElement[bool]:
    """Its time has come; or it was asked for without a pause, or by a clock that was ahead: then its time means nothing."""
    dateless = or_(job.run_after <= job.created_at, job.created_at > bindparam("not_yet", type_=job.created_at.type))
    return and_(job.cancel_requested.is_(False), or_(job.run_after <= bindparam("now", type_=job.run_after.type), dateless))


def _is_busy(domain_id: ColumnElement[str]) -> ColumnElement[bool]:
    other = aliased(Job)
    return exists().where(
        other.domain_id == domain_id,
        other.state.in_([as_sql(JobState.running), as_sql(JobState.interrupted)]),
        other.kind != as_sql(JobKind.thaw),
    )


def as_sql(value: JobState | JobKind) -> ColumnElement[str]:
    """Written into the SQL text: a partial index is only used when its condition is seen while the statement is planned."""
    return literal(value.value, literal_execute=True)


# Built once: every idle worker asks this once a second.
_NEXT_THAW = (
    select(Job.id, Job.kind)
    .where(Job.host_id == bindparam("host"), Job.state == as_sql(JobState.queued), Job.kind == as_sql(JobKind.thaw), _is_due(Job))
    .order_by(Job.run_after, Job.id)
    .limit(1)
)
_HOST_IS_FREE = select(slots.host_is_free(bindparam("host_resource")))
_HEAD = aliased(Job)
_NEXT_OTHER = _first_of_each_domain(_HEAD)
_NEXT_OF_KINDS = _first_of_each_domain(_HEAD, _HEAD.kind.in_(bindparam("kinds", expanding=True)))
_COLUMNS = (Job.id, Job.kind, Job.domain_id, Job.domain_name, Job.host_id, Job.request, Job.labels)
_LOCKED = (
    select(*_COLUMNS, Job.attempt, Job.max_attempts, Job.intent, Job.phases, Job.started_at, Job.request_version, Job.shortfall_try)
    .where(Job.id == bindparam("id"), Job.state == as_sql(JobState.queued), Job.cancel_requested.is_(False))
    .with_for_update(skip_locked=True)
)
