"""Sees to it that each domain has the schedules of its policy: one for each track.

Any number of processes may do so at the same time. What must be changed is found by reading, and is decided again in small transactions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Row, exists, select, update
from sqlalchemy.orm import Session

from service.db.engine import Database, database_now
from service.db.tables import DatabaseIdentity, Policy
from service.model.schedule import begin, fire_at_of, key_of, next_due
from service.model.schedule_rule import ScheduleRule
from service.model.selectors import Domain, Tie
from service.records import covered_since, listed_domains, policy_blackouts, policy_limits, schedules
from service.records.policy_book import Entry, PolicyBook, PolicyReader
from service.scheduler.settling import CLOCK_AHEAD, GONE_KEPT, Settled, settle

EVERY = timedelta(seconds=10)
"""How often the domains are compared with their schedules. A changed policy is noticed at the next look."""
NEW_SINCE = timedelta(minutes=1)
"""A domain that has appeared is covered from the last comparison on, and at most from so long ago."""
BATCH = 100
"""Schedules that one transaction adds or brings up to date. With more, other writers wait too long on SQLite."""

Item = TypeVar("Item")
Clock = Callable[[Session], datetime]
Wanted = tuple[str, str, str]
"""The id of a policy, a track, and the id of a domain."""


@dataclass(frozen=True)
class _Seen:
    """What one comparison has read. `last`: when the last one was made."""

    now: datetime
    last: datetime | None
    book: PolicyBook
    domains: dict[str, Domain]
    wanted: dict[Wanted, Domain]
    rows: dict[Wanted, Row[Any]]


class Covering:
    """For one thread. `note` gets what was decided in each transaction, after its commit."""

    def __init__(
        self, database: Database, reader: PolicyReader, queue_limit: int, *, note: Callable[[Settled], None], clock: Clock = database_now
    ) -> None:
        self._database = database
        self._reader = reader
        self._queue_limit = queue_limit
        self._note = note
        self._clock = clock

    def is_due(self, book: PolicyBook, last: datetime | None, now: datetime) -> bool:
        """A policy was changed, or the time is over, and no other process has done it. Without policies there is nothing to do."""
        if book.is_empty or last is None:
            return not (book.is_empty and last is None)
        return abs(now - last) >= EVERY or (book.updated_at is not None and last <= book.updated_at <= now)

    def cover(self) -> None:
        """Raises DatabaseUnavailable. What is left undone then is done by the next call, of this process or of another one."""
        with self._database.read() as session:
            seen = self._seen(session)
        with self._database.write() as session:
            if not take_turn(session, seen.last, seen.now):
                return
            policy_blackouts.note(session, seen.book.entries.values(), seen.now)
        missing = [key for key in seen.wanted if key not in seen.rows]
        for part in _parts(missing):
            self._add(seen, part)
        for rows in _parts([row for row in seen.rows.values() if _must_be_settled(seen, row)]):
            self._settle(rows)
        with self._database.write() as session:
            if seen.book.is_empty:
                forget_covered(session)
            if not seen.book.unreadable:
                policy_limits.follow(session, {entry.name: entry.policy.limits for entry in seen.book.entries.values()})

    def _seen(self, session: Session) -> _Seen:
        now = self._clock(session)
        book = self._reader.book(session)
        domains = listed_domains.listed(session, now)
        rows = {(row.policy_id, row.track, row.domain_id): row for row in schedules.everyone(session)}
        return _Seen(now, last_covered(session), book, domains, book.tracks(domains.values()), rows)

    def _add(self, seen: _Seen, part: Sequence[Wanted]) -> None:
        with_schedules = {domain_id for _, _, domain_id in seen.rows}
        with self._database.write() as session:
            # What was read before may have changed: a policy that is gone has no schedules, and one that was changed has others.
            book = self._reader.book(session, locked={policy_id for policy_id, _, _ in part})
            still = [key for key in part if key in book.tracks([seen.wanted[key]])]
            since = covered_since.by_policy_and_domain(session, {key[0] for key in still}, {key[2] for key in still})
            schedules.add(session, [_new(seen, book, key, since, is_known=key[2] in with_schedules) for key in still])

    def _settle(self, rows: Sequence[Row[Any]]) -> None:
        with self._database.write() as session:
            book = self._reader.book(session, locked={row.policy_id for row in rows})
            settled = settle(session, book, [row.id for row in rows], self._clock(session), self._queue_limit)
        self._note(settled)


def _new(seen: _Seen, book: PolicyBook, key: Wanted, covered: Mapping[tuple[str, str], datetime], *, is_known: bool) -> dict[str, Any]:
    """`is_known`: the domain has other schedules. Then this one begins now, as no instant is to count for two policies.

    `covered`: since when a policy has a domain. A track that was renamed does not make the promise new.
    """
    policy_id, name, domain_id = key
    entry, domain = book.entries[policy_id], seen.wanted[key]
    track = entry.policy.track(name)
    assert track is not None
    if seen.last is None or entry.updated_at >= seen.last - NEW_SINCE:
        # Not later than now: the clock may have been ahead when the policy was changed.
        since = min(entry.updated_at, seen.now)
    else:
        since = seen.now if is_known else max(seen.last, seen.now - NEW_SINCE)
    first = begin(track.schedule, entry.policy.blackouts, key_of(name, domain_id), since)
    return {
        "policy_id": policy_id,
        "track": name,
        "domain_id": domain_id,
        "domain_name": domain.name,
        "host_id": domain.host,
        "created_at": covered.get((policy_id, domain_id), seen.now),
        "next_due_at": first.next_due_at,
        "fire_at": first.fire_at,
        "rule": schedules.text_of(track.schedule),
    }


def _must_be_settled(seen: _Seen, row: Row[Any]) -> bool:
    """Whether the schedule is not as its policy and its domain are now. `settle` decides what follows."""
    entry, domain = seen.book.entries.get(row.policy_id), seen.domains.get(row.domain_id)
    if entry is None:
        # A newer version wrote the policy, or it was removed with this schedule meanwhile.
        return False
    track = entry.policy.track(row.track)
    if track is None or track.schedule != schedules.rule_in(row.rule):
        return True
    if domain is None:
        return row.gone_since is None or seen.now - row.gone_since >= GONE_KEPT
    if (row.policy_id, row.track, row.domain_id) not in seen.wanted:
        holder = seen.book.policy_of(domain)
        return not (isinstance(holder, Tie) and entry.name in holder.policies)
    is_moved = (row.domain_name, row.host_id) != (domain.name, domain.host)
    return (
        is_moved
        or row.gone_since is not None
        or _is_too_late(track.schedule, row.next_due_at, seen.now)
        or _has_new_start(seen, entry, row)
    )


def _has_new_start(seen: _Seen, entry: Entry, row: Row[Any]) -> bool:
    """Whether other blackouts move the next run. Only a policy that was changed just now is looked at."""
    track = entry.policy.track(row.track)
    if track is None or row.next_due_at is None or (seen.last is not None and entry.updated_at < seen.last - NEW_SINCE):
        return False
    return bool(fire_at_of(track.schedule, entry.policy.blackouts, key_of(row.track, row.domain_id), row.next_due_at) != row.fire_at)


def _is_too_late(rule: ScheduleRule, next_due_at: datetime | None, now: datetime) -> bool:
    """A clock that was ahead has moved the schedule into the future."""
    if next_due_at is not None and next_due_at <= now + CLOCK_AHEAD:
        return False
    expected = next_due(rule, now + CLOCK_AHEAD)
    return expected is not None and (next_due_at is None or next_due_at > expected)


def last_covered(session: Session) -> datetime | None:
    return session.scalar(select(DatabaseIdentity.scheduled_at))


def take_turn(session: Session, last: datetime | None, now: datetime) -> bool:
    """`last`: as it was read. False: another process has compared since then, or does so now."""
    scheduled_at = DatabaseIdentity.scheduled_at
    is_as_read = scheduled_at.is_(None) if last is None else scheduled_at == last
    return session.scalar(update(DatabaseIdentity).where(is_as_read).values(scheduled_at=now).returning(DatabaseIdentity.id)) is not None


def forget_covered(session: Session) -> None:
    """Where the last policy was removed. The next one may come after months, and then the clock has not jumped."""
    there_are_none = update(DatabaseIdentity).where(~exists(select(Policy.id)))
    session.execute(there_are_none.values(scheduled_at=None))


def _parts(items: list[Item]) -> Iterator[list[Item]]:
    return (items[begin : begin + BATCH] for begin in range(0, len(items), BATCH))
