"""Finds rows that are too old to be kept, and removes them. A recovery point and its job are never removed.

Transactions that only read find the rows, page by page. Short transactions check the rows again and remove them, because other processes
create, claim and finish jobs in between. Any number of processes may remove at the same time: a locked row is left to its process.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, literal, or_, select, true, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import (
    Domain,
    Event,
    Gate,
    GuestMemory,
    Host,
    Job,
    LastJob,
    PrunedJobs,
    RawText,
    RecoveryPoint,
    RepositorySample,
    ScheduleRun,
    Slot,
    Token,
)
from service.model.lifecycle import FINAL_STATES
from service.records.slots import lanes_of

PAGE = 200
"""Rows that one read examines. The next read continues after them."""
_ENDS = tuple(state.value for state in FINAL_STATES)
_AT_ONCE = {"synchronize_session": False}

Condition = ColumnElement[bool]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Page:
    """`ids`: the examined rows that may be removed. `last`: the key after which the next page begins. None: there is no next page."""

    ids: list[Any]
    last: Key | None


@dataclass(frozen=True)
class Subject:
    """`looks_at` is a range of an index, in the order of `place`. `goes` decides about each row of that range.

    Both get the time before which a row is too old.
    """

    name: str
    identifier: Any
    place: tuple[Any, ...]
    looks_at: Callable[[datetime], Condition]
    goes: Callable[[datetime], Condition]
    take_away: Callable[[Session, Sequence[Any]], None]
    #: The oldest rows come first, so if one row stays, all rows after it stay.
    oldest_first: bool = False

    def find(self, session: Session, before: datetime, after: Key | None) -> Page:
        rows = select(self.identifier, *self.place).where(self.looks_at(before), _is_after(self.place, after))
        rows_of_page = session.execute(rows.order_by(*self.place).limit(PAGE)).all()
        ids = list(dict.fromkeys(row[0] for row in rows_of_page))
        going = self._going(session, ids, before, lock=False)
        is_last = len(rows_of_page) < PAGE or (self.oldest_first and len(going) < len(ids))
        return Page(going, None if is_last else tuple(rows_of_page[-1][1:]))

    def remove(self, session: Session, ids: Collection[Any], before: datetime) -> int:
        """Remove the rows of `ids` that may still be removed. Returns their number."""
        going = self._going(session, ids, before, lock=True)
        if going:
            self.take_away(session, going)
        return len(going)

    def _going(self, session: Session, ids: Collection[Any], before: datetime, *, lock: bool) -> list[Any]:
        # `goes` is not a condition of the search, because both databases would then read whole tables instead of a few rows.
        rows = select(self.identifier, self.goes(before)).where(self.identifier.in_(ids))
        if lock:
            rows = rows.with_for_update(skip_locked=True, of=self.identifier.class_)
        return list(dict.fromkeys(row[0] for row in session.execute(rows) if row[1]))


def _is_after(place: Sequence[Any], after: Key | None) -> Condition:
    if after is None:
        return true()
    return tuple_(*place) > tuple_(*(literal(value, column.type) for column, value in zip(place, after, strict=True)))


def _every_row(_before: datetime) -> Condition:
    return true()


# --- raw texts ------------------------------------------------------------------------------------


def _is_old_text(before: datetime) -> Condition:
    return and_(RawText.aged_out_at.is_(None), RawText.created_at < before)


def _age_out(session: Session, job_ids: Sequence[str]) -> None:
    """Remove the texts. The row stays, and says when its texts were removed."""
    now = database_now(session)
    aged = update(RawText).where(RawText.job_id.in_(job_ids), RawText.aged_out_at.is_(None))
    session.execute(aged.values(document={"aged_out_at": rfc3339(now)}, aged_out_at=now).execution_options(**_AT_ONCE))


# --- jobs and their gates -------------------------------------------------------------------------


def _has_ended(before: datetime) -> Condition:
    return and_(Job.state.in_(_ENDS), Job.finished_at < before)


def _is_gate_of_ended(before: datetime) -> Condition:
    return exists().where(Job.id == Gate.job_id, _has_ended(before))


def _delete_gates(session: Session, job_ids: Sequence[str]) -> None:
    session.execute(delete(Gate).where(Gate.job_id.in_(job_ids)).execution_options(**_AT_ONCE))


def _was_created(before: datetime) -> Condition:
    """Follows the index of the list: a job that ended before this time was created before this time."""
    return Job.created_at < before


def _is_old_job(before: datetime) -> Condition:
    """A job that was forgotten with its host stays, because its guest is looked at when the host comes back."""
    return and_(_has_ended(before), Job.forgotten_at.is_(None), ~exists().where(RecoveryPoint.job_id == Job.id))


def _delete_jobs(session: Session, job_ids: Sequence[str]) -> None:
    """Delete the jobs with their labels, gates, raw texts and idempotency keys. Their numbers are kept for the metrics."""
    counts = select(Job.kind, Job.state, func.count()).where(Job.id.in_(job_ids)).group_by(Job.kind, Job.state)
    # In one order, so that two processes do not wait for each other.
    for row in session.execute(counts.order_by(Job.kind, Job.state)).all():
        _count(session, *row)
    session.execute(delete(Job).where(Job.id.in_(job_ids)).execution_options(**_AT_ONCE))


def _count(session: Session, kind: str, state: str, count: int) -> None:
    of_kind = update(PrunedJobs).where(PrunedJobs.kind == kind, PrunedJobs.state == state)
    counted = of_kind.values(count=PrunedJobs.count + count).returning(PrunedJobs.count).execution_options(**_AT_ONCE)
    if session.scalar(counted) is not None:
        return
    try:
        with session.begin_nested():
            session.execute(insert(PrunedJobs).values(kind=kind, state=state, count=count))
    except IntegrityError:
        # Another process has inserted the row at the same time.
        session.execute(counted)


# --- runs of schedules -----------------------------------------------------------------------------


def _is_old_run(before: datetime) -> Condition:
    return ScheduleRun.decided_at < before


def _delete_runs(session: Session, instants: Sequence[datetime]) -> None:
    session.execute(delete(ScheduleRun).where(ScheduleRun.decided_at.in_(instants)).execution_options(**_AT_ONCE))


# --- events ---------------------------------------------------------------------------------------


def _is_old_event(before: datetime) -> Condition:
    return Event.at < before


def _delete_events(session: Session, ids: Sequence[Any]) -> None:
    session.execute(delete(Event).where(Event.id.in_(ids)).execution_options(**_AT_ONCE))


# --- memories of guests, last jobs, free space, tokens, hosts --------------------------------------


def _is_old_memory(before: datetime) -> Condition:
    """The memory of a guest that no host publishes any more, and of which no job is left."""
    has_job = exists().where(Job.domain_id == GuestMemory.domain_id)
    is_published = exists().where(Domain.id == GuestMemory.domain_id)
    return and_(GuestMemory.updated_at < before, ~has_job, ~is_published)


def _delete_memories(session: Session, domain_ids: Sequence[str]) -> None:
    session.execute(delete(GuestMemory).where(GuestMemory.domain_id.in_(domain_ids)).execution_options(**_AT_ONCE))


def _is_old_last_job(before: datetime) -> Condition:
    """The last job of a domain that no host publishes any more. A newer job of another kind keeps it."""
    other = aliased(LastJob)
    has_newer = exists().where(other.domain_id == LastJob.domain_id, other.ended_at >= before)
    return and_(~has_newer, ~exists().where(Domain.id == LastJob.domain_id))


def _delete_last_jobs(session: Session, domain_ids: Sequence[str]) -> None:
    session.execute(delete(LastJob).where(LastJob.domain_id.in_(domain_ids)).execution_options(**_AT_ONCE))


def _is_old_sample(before: datetime) -> Condition:
    return RepositorySample.at < before


def _delete_samples(session: Session, instants: Sequence[datetime]) -> None:
    session.execute(delete(RepositorySample).where(RepositorySample.at.in_(instants)).execution_options(**_AT_ONCE))


def _is_dead_token(before: datetime) -> Condition:
    """The newest token stays: without any token the next start makes one, which may be unwanted."""
    newest = select(Token.id).order_by(Token.created_at.desc(), Token.id.desc()).limit(1).scalar_subquery()
    return and_(or_(Token.revoked_at < before, Token.expires_at < before), Token.id != newest)


def _delete_tokens(session: Session, token_ids: Sequence[str]) -> None:
    session.execute(delete(Token).where(Token.id.in_(token_ids)).execution_options(**_AT_ONCE))


def _is_gone(before: datetime) -> Condition:
    """A host that has been silent since this time, and that has neither a job nor a recovery point."""
    has_job, has_point = exists().where(Job.host_id == Host.id), exists().where(RecoveryPoint.host_id == Host.id)
    return and_(Host.last_seen < before, ~has_job, ~has_point)


def _delete_hosts(session: Session, host_ids: Sequence[str]) -> None:
    """Delete the hosts with the domains that they published."""
    lanes = [lane for host_id in host_ids for lane in lanes_of(host_id)]
    session.execute(delete(Slot).where(Slot.resource.in_(lanes)).execution_options(**_AT_ONCE))
    session.execute(delete(Host).where(Host.id.in_(host_ids)).execution_options(**_AT_ONCE))


RAW_TEXTS = Subject("raw_texts", RawText.job_id, (RawText.created_at, RawText.job_id), _is_old_text, _is_old_text, _age_out)
GATES = Subject("gates", Gate.job_id, (Gate.job_id,), _every_row, _is_gate_of_ended, _delete_gates)
JOBS = Subject("jobs", Job.id, (Job.created_at, Job.id), _was_created, _is_old_job, _delete_jobs)
#: Runs that were decided at one instant are removed together, and count as one.
RUNS = Subject(
    "schedule_runs",
    ScheduleRun.decided_at,
    (ScheduleRun.decided_at, ScheduleRun.schedule_id, ScheduleRun.due_at),
    _is_old_run,
    _is_old_run,
    _delete_runs,
)
EVENTS = Subject("events", Event.id, (Event.id,), _every_row, _is_old_event, _delete_events, oldest_first=True)
GUEST_MEMORIES = Subject("guest_memories", GuestMemory.domain_id, (GuestMemory.domain_id,), _every_row, _is_old_memory, _delete_memories)
LAST_JOBS = Subject("last_jobs", LastJob.domain_id, (LastJob.domain_id, LastJob.kind), _every_row, _is_old_last_job, _delete_last_jobs)
#: The samples of one instant are equally old, so the instant identifies them.
REPOSITORY_SAMPLES = Subject(
    "repository_samples",
    RepositorySample.at,
    (RepositorySample.at, RepositorySample.repository_id),
    _is_old_sample,
    _is_old_sample,
    _delete_samples,
)
TOKENS = Subject("tokens", Token.id, (Token.id,), _is_dead_token, _is_dead_token, _delete_tokens)
HOSTS = Subject("hosts", Host.id, (Host.id,), _is_gone, _is_gone, _delete_hosts)
