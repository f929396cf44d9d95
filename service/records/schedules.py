"""The schedules on record, and what became of their runs. Callers commit.

A transaction that decides takes its policies first and its schedules then. So two of them never wait for each other.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.tables import Job, JobLabel, Policy, Schedule, ScheduleRun
from service.model import schedule
from service.model.lifecycle import FINAL_STATES
from service.model.origin import SCHEDULE_LABEL
from service.model.schedule import Outcome, Reason, Run, Standing, key_of
from service.model.schedule_rule import CatchUp, ScheduleRule

_SCHEDULES, _RUNS = table_of(Schedule), table_of(ScheduleRun)
_INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
_AT_ONCE = {"synchronize_session": False}
_FINAL = tuple(state.value for state in FINAL_STATES)

ScheduleRow = Row[Any]
"""With the columns of `schedules`."""


# --- rules as text --------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def text_of(rule: ScheduleRule) -> str:
    return json.dumps(rule.as_document(), sort_keys=True)


@lru_cache(maxsize=1024)
def rule_in(text: str) -> ScheduleRule:
    """A field that this version does not know is left out. Its policy is then unreadable, too, and the schedule is left alone."""
    document = json.loads(text)
    known = {name: document[name] for name in ScheduleRule.__dataclass_fields__ if name in document}
    return ScheduleRule(**{**known, "catch_up": CatchUp(known["catch_up"])})


# --- finding --------------------------------------------------------------------------------------


def due(
    session: Session, now: datetime, limit: int, *, apart_from: Collection[str] = (), of_no: Collection[str] = ()
) -> Sequence[Row[Any]]:
    """The id and the policy of those that must be looked at, the earliest first. `apart_from`: schedules. `of_no`: policies."""
    rows = select(Schedule.id, Schedule.policy_id).where(Schedule.fire_at <= now)
    if apart_from:
        rows = rows.where(Schedule.id.not_in(apart_from))
    if of_no:
        rows = rows.where(Schedule.policy_id.not_in(of_no))
    return list(session.execute(rows.order_by(Schedule.fire_at, Schedule.id).limit(limit)))


def first_fire_at(session: Session) -> datetime | None:
    return session.scalar(select(func.min(Schedule.fire_at)))


def locked(session: Session, ids: Collection[str]) -> Sequence[ScheduleRow]:
    """The schedules that no other transaction decides now. No other one decides them until this one ends."""
    rows = select(*_SCHEDULES.columns).where(Schedule.id.in_(ids)).order_by(Schedule.fire_at, Schedule.id)
    return session.execute(rows.with_for_update(skip_locked=True)).all()


def everyone(session: Session) -> Sequence[Row[Any]]:
    """What tells whether a schedule is as its policy and its domain are now."""
    return list(session.execute(_EVERYONE))


_EVERYONE = select(
    Schedule.id,
    Schedule.policy_id,
    Schedule.track,
    Schedule.domain_id,
    Schedule.domain_name,
    Schedule.host_id,
    Schedule.next_due_at,
    Schedule.fire_at,
    Schedule.rule,
    Schedule.gone_since,
)


def jobs_at_work(session: Session, ids: Collection[str]) -> dict[str, str]:
    """The newest job of each schedule, where it has not ended. A follow-up of a job that fell short, and a retry, are its jobs, too."""
    return {row[0]: row[1] for row in session.execute(_AT_WORK, {"ids": list(ids)})}


def _at_work_statement() -> Select[Any, Any]:
    of_schedule = select(JobLabel.job_id).where(JobLabel.key == SCHEDULE_LABEL, JobLabel.value == Schedule.id)
    newest = of_schedule.order_by(JobLabel.created_at.desc(), JobLabel.job_id.desc()).limit(1).correlate(Schedule).scalar_subquery()
    rows = select(Schedule.id, newest.label("job_id")).where(Schedule.id.in_(bindparam("ids", expanding=True))).subquery()
    return select(rows.c.id, Job.id).join(Job, Job.id == rows.c.job_id).where(Job.state.not_in(_FINAL))


_AT_WORK = _at_work_statement()


def decided(session: Session, rows: Sequence[ScheduleRow]) -> dict[str, list[datetime]]:
    """The instants from `next_due_at` on that have an outcome."""
    first = min((row.next_due_at for row in rows if row.next_due_at is not None), default=None)
    if first is None:
        return {}
    runs = select(ScheduleRun.schedule_id, ScheduleRun.due_at)
    by_schedule: dict[str, list[datetime]] = {}
    for schedule_id, due_at in session.execute(
        runs.where(ScheduleRun.schedule_id.in_([row.id for row in rows]), ScheduleRun.due_at >= first)
    ):
        by_schedule.setdefault(schedule_id, []).append(due_at)
    return by_schedule


# --- writing --------------------------------------------------------------------------------------


def add(session: Session, rows: Iterable[dict[str, Any]]) -> int:
    """Schedules without their ids. One that another process has added at the same time stays as it is. Returns how many were added."""
    new = [{"id": str(uuid4()), "last_job_id": None, "gone_since": None, **row} for row in rows]
    if not new:
        return 0
    added = _INSERT[session.get_bind().dialect.name](_SCHEDULES).on_conflict_do_nothing(index_elements=["policy_id", "track", "domain_id"])
    return len(session.execute(added.values(new).returning(_SCHEDULES.c.id)).all())


def change(session: Session, changes: Sequence[Mapping[str, Any]]) -> None:
    """Each with its `id`, and all with the same columns."""
    if changes:
        columns = {name: bindparam(f"new_{name}", type_=_SCHEDULES.c[name].type) for name in changes[0] if name != "id"}
        values = [{f"new_{name}": value for name, value in each.items()} for each in changes]
        session.connection().execute(update(_SCHEDULES).where(_SCHEDULES.c.id == bindparam("new_id")).values(columns), values)


def remove(session: Session, ids: Collection[str]) -> None:
    """What became of their runs stays on record."""
    if ids:
        session.execute(delete(Schedule).where(Schedule.id.in_(ids)).execution_options(**_AT_ONCE))


def note_runs(session: Session, row: ScheduleRow, policy_name: str, runs: Iterable[tuple[Run, str | None]], now: datetime) -> None:
    """Each run with its job. The database refuses a second outcome of the same instant."""
    same = {"schedule_id": row.id, "policy_id": row.policy_id, "policy_name": policy_name, "track": row.track, "domain_id": row.domain_id}
    values = [
        {
            **same,
            "domain_name": row.domain_name,
            "due_at": run.due_at,
            "outcome": run.outcome.value,
            "reason": run.reason.value if run.reason is not None else None,
            "facts": dict(run.facts),
            "job_id": job_id,
            "decided_at": now,
        }
        for run, job_id in runs
    ]
    if values:
        session.execute(insert(_RUNS), values)


def take_back(session: Session, schedule_id: str, after: datetime) -> None:
    """A clock that was ahead has decided instants that have not come. Only what has a job stays decided."""
    future = delete(ScheduleRun).where(ScheduleRun.schedule_id == schedule_id, ScheduleRun.due_at > after)
    session.execute(future.where(ScheduleRun.outcome != Outcome.queued.value).execution_options(**_AT_ONCE))


def decided_after(session: Session, schedule_id: str, after: datetime) -> Sequence[datetime]:
    return session.scalars(select(ScheduleRun.due_at).where(ScheduleRun.schedule_id == schedule_id, ScheduleRun.due_at > after)).all()


# --- when a policy is removed ---------------------------------------------------------------------


def give_up_all(session: Session, policy_id: str, policy_name: str, now: datetime) -> None:
    """What is due and has not begun is skipped, because the policy is about to be removed with its schedules."""
    session.execute(select(Policy.id).where(Policy.id == policy_id).with_for_update()).all()
    rows = select(*_SCHEDULES.columns).where(Schedule.policy_id == policy_id, Schedule.next_due_at <= now).with_for_update()
    waiting = session.execute(rows).all()
    known = decided(session, waiting)
    for row in waiting:
        has_more, next_due_at = True, row.next_due_at
        while has_more:
            standing = Standing(key_of(row.track, row.domain_id), next_due_at, decided=known.get(row.id, ()))
            given_up = schedule.give_up(rule_in(row.rule), standing, Reason.policy_changed, now)
            note_runs(session, row, policy_name, [(run, None) for run in given_up.runs], now)
            has_more, next_due_at = given_up.has_more, given_up.next_due_at


def removed_policy(session: Session, id_or_name: str) -> str | None:
    """The id of a policy that was removed, and of which runs are on record. Of several that had the name: the one that was due last."""
    with_name: dict[str, datetime] = {}
    policy_id = _next_with_runs(session, "")
    while policy_id is not None:
        newest = select(ScheduleRun.policy_name, ScheduleRun.due_at).where(ScheduleRun.policy_id == policy_id)
        name, due_at = session.execute(newest.order_by(ScheduleRun.due_at.desc()).limit(1)).one()
        if id_or_name in (policy_id, name) and session.get(Policy, policy_id) is None:
            if id_or_name == policy_id:
                return policy_id
            with_name[policy_id] = due_at
        policy_id = _next_with_runs(session, policy_id)
    return max(with_name, key=lambda each: with_name[each], default=None)


def _next_with_runs(session: Session, policy_id: str) -> str | None:
    """There are millions of runs, and few policies: an index steps from one policy to the next."""
    return session.scalar(select(func.min(ScheduleRun.policy_id)).where(ScheduleRun.policy_id > policy_id))
