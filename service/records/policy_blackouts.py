"""When the jobs of a policy may not begin: its blackouts, where workers find them.

The scheduler notes the blackout of each policy that is now, or begins within the next minute. What it noted ends by itself.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, bindparam, or_, select, update
from sqlalchemy.orm import Session

from service.db.tables import Policy
from service.model.blackouts import blocked_until
from service.model.origin import POLICY_LABEL
from service.records.policy_book import Entry

_MINUTE = timedelta(minutes=1)


class Blackout(NamedTuple):
    since: datetime
    until: datetime


def note(session: Session, entries: Iterable[Entry], now: datetime) -> None:
    """Only what has changed is written."""
    rows: dict[str, Any] = {row.id: row for row in session.execute(_NOTED)}
    for entry in sorted(entries, key=lambda entry: entry.id):
        row, blackout = rows.get(entry.id), next_blackout(entry, now)
        if row is None or not _has_changed(row, blackout, now):
            continue
        since, until = blackout if blackout is not None else (None, None)
        change = update(Policy).where(Policy.id == entry.id).values(blocked_from=since, blocked_until=until)
        session.execute(change.execution_options(synchronize_session=False))


_NOTED = select(Policy.id, Policy.blocked_from, Policy.blocked_until)


def _has_changed(row: Row[Any], blackout: Blackout | None, now: datetime) -> bool:
    if blackout is None:
        return row.blocked_until is not None and row.blocked_until > now
    return row.blocked_from is None or row.blocked_from > blackout.since or row.blocked_until != blackout.until


def next_blackout(entry: Entry, now: datetime) -> Blackout | None:
    """The blackout that is now, or begins with the next minute. None: neither. Windows begin with a minute."""
    minute = now.replace(second=0, microsecond=0)
    for since in (minute, minute + _MINUTE):
        until = blocked_until(entry.policy.blackouts, since)
        if until is not None and until > now:
            return Blackout(since, until)
    return None


def in_blackout(session: Session, now: datetime) -> frozenset[str]:
    """The names of the policies whose jobs may not begin now."""
    return frozenset(session.scalars(_IN_BLACKOUT, {"now": now}))


_NOW = bindparam("now", type_=Policy.blocked_from.type)
# Built once: every idle worker asks this once a second.
_IN_BLACKOUT = select(Policy.name).where(Policy.blocked_from <= _NOW, Policy.blocked_until > _NOW)


def may_begin(job: Any, names: Collection[str]) -> ColumnElement[bool]:
    """A job that has begun continues, and what a person asks for begins in a blackout, too."""
    policy = job.labels[POLICY_LABEL].as_string()
    return or_(policy.is_(None), policy.not_in(names), job.attempt > 0, job.token_id.is_not(None))
