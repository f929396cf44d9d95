"""Removes rows that are too old while the service runs: once an hour, in one of its processes, in very short transactions."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import Counter
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from service import log
from service.config import Settings
from service.db.engine import Database, database_now
from service.db.tables import DatabaseIdentity
from service.model.trend import LOOK_BACK_DAYS
from service.records import ageing
from service.records.ageing import Subject

EVERY = timedelta(hours=1)
LOOK_S = 60.0
"""Seconds between two questions of a process whether the hour is over."""
JUMP = timedelta(days=7)
"""If the clock differs by more than this from the last pruning, it may have jumped."""
JUMP_BELIEVED_S = 6 * 3600.0
"""Seconds that a process runs before it believes a clock that may have jumped. Nothing is pruned until then."""
WRITE_S = 0.010
"""Seconds. After a transaction that took longer, the next transaction is smaller, because on SQLite all other writers wait for it."""
MAX_ROWS = 200
"""Rows that one transaction removes at most."""
MIN_ROWS = 5
"""Rows that one transaction removes at least. Fewer rows are hardly faster, because the commit costs most of the time."""
REST = 4
"""After each transaction the thread rests for this many times as long as the transaction took."""
SAMPLES_DAYS = 2 * LOOK_BACK_DAYS
"""Days that the free space of a repository is remembered: longer than the trend looks back."""
MAX_REST_S = 0.5
"""Seconds. A longer rest is cut to this."""

PRUNED = Counter("stillpoint_pruned", "Rows that this process removed because of their age, by what they were", ["what"])

_logger = log.get(__name__)


@dataclass(frozen=True)
class Due:
    """One subject, and the time before which its rows are too old."""

    subject: Subject
    before: datetime


def due(settings: Settings, now: datetime) -> list[Due]:
    """First what belongs to jobs, and hosts last, because the last job of a host may be removed before it."""
    days = {
        ageing.RAW_TEXTS: settings.keep_evidence_days,
        ageing.GATES: settings.keep_gates_days,
        ageing.JOBS: settings.keep_jobs_days,
        ageing.RUNS: settings.keep_jobs_days,
        ageing.EVENTS: settings.keep_events_days,
        ageing.GUEST_MEMORIES: settings.keep_jobs_days,
        ageing.LAST_JOBS: settings.keep_jobs_days,
        ageing.REPOSITORY_SAMPLES: SAMPLES_DAYS,
        ageing.TOKENS: settings.keep_tokens_days,
        ageing.HOSTS: settings.keep_hosts_days,
    }
    return [Due(subject, now - timedelta(days=kept)) for subject, kept in days.items() if kept > 0]


class Pace:
    """The number of rows that one transaction removes. It adapts, so that a transaction stays short with any rows on any disk."""

    def __init__(self) -> None:
        self.rows = MIN_ROWS

    def note(self, took_s: float) -> None:
        """Adapt to the time that a transaction with this number of rows took."""
        if took_s > WRITE_S:
            self.rows = max(MIN_ROWS, self.rows // 2)
        elif took_s < WRITE_S / 3:
            self.rows = min(MAX_ROWS, self.rows * 2)


class Pruning:
    """`stopping` ends a run after the current transaction. The next run continues."""

    def __init__(self, database: Database, stopping: threading.Event, new_pace: Callable[[], Pace] = Pace) -> None:
        self._database = database
        self._stopping = stopping
        self._new_pace = new_pace

    def run(self, all_due: list[Due]) -> dict[str, int]:
        """Remove what is due. Returns the number of removed rows of each subject. Raises DatabaseUnavailable."""
        removed = dict.fromkeys((each.subject.name for each in all_due), 0)
        for each in all_due:
            for count in self._remove(each):
                removed[each.subject.name] += count
                PRUNED.labels(what=each.subject.name).inc(count)
        return removed

    def count(self, all_due: list[Due]) -> dict[str, int]:
        """What `run` would remove, without rows that can be removed only after other rows."""
        return {each.subject.name: sum(len(ids) for ids in self.pages(each)) for each in all_due}

    def pages(self, each: Due) -> Iterator[list[Any]]:
        """The ids of the rows to remove, page by page. This only reads."""
        last = None
        while not self._stopping.is_set():
            began = time.perf_counter()
            with self._database.read() as session:
                page = each.subject.find(session, each.before, last)
            self._rest(time.perf_counter() - began)
            yield page.ids
            last = page.last
            if last is None:
                return

    def _remove(self, each: Due) -> Iterator[int]:
        # Each subject has its own pace, because a text is a thousand times as large as a gate.
        pace = self._new_pace()
        for page in self.pages(each):
            left = page
            while left and not self._stopping.is_set():
                now, left = left[: pace.rows], left[pace.rows :]
                yield self._remove_at_once(each, now, pace)

    def _remove_at_once(self, each: Due, ids: list[Any], pace: Pace) -> int:
        with self._database.write() as session:
            began = time.perf_counter()
            count = each.subject.remove(session, ids, each.before)
        took_s = time.perf_counter() - began
        pace.note(took_s)
        self._rest(took_s)
        return count

    def _rest(self, took_s: float) -> None:
        self._stopping.wait(min(REST * took_s, MAX_REST_S))


class PruningLooks:
    """Prunes once an hour. Many processes may look: the database gives the turn to one of them. `stopping`: as of `Pruning`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._stopping = stopping or threading.Event()
        self._monotonic = monotonic
        self._jump_seen: float | None = None

    def look(self) -> None:
        """Prune if the hour is over and this process gets the turn. Raises DatabaseUnavailable."""
        with self._database.read() as session:
            now = database_now(session)
            last = session.scalar(select(DatabaseIdentity.pruned_at))
        if not _is_due(last, now) or self._may_have_jumped(last, now):
            return
        with self._database.write() as session:
            if not take_turn(session):
                return
        removed = Pruning(self._database, self._stopping).run(due(self._settings, now))
        if any(removed.values()):
            _logger.info("pruned", **removed)

    def _may_have_jumped(self, last: datetime | None, now: datetime) -> bool:
        """A clock that is years ahead for an hour must not cost years of records."""
        if last is None or abs(now - last) <= JUMP:
            self._jump_seen = None
            return False
        if self._jump_seen is None:
            self._jump_seen = self._monotonic()
            _logger.warning("clock_may_have_jumped", last_pruned_at=str(last), now=str(now), pruning_in_s=JUMP_BELIEVED_S)
        return self._monotonic() - self._jump_seen < JUMP_BELIEVED_S


def take_turn(session: Session) -> bool:
    """Take the turn to prune. False: another process has pruned within the last hour."""
    now = database_now(session)
    pruned_at = DatabaseIdentity.pruned_at
    is_due = or_(pruned_at.is_(None), pruned_at <= now - EVERY, pruned_at > now + EVERY)
    return session.scalar(update(DatabaseIdentity).where(is_due).values(pruned_at=now).returning(DatabaseIdentity.id)) is not None


def _is_due(last: datetime | None, now: datetime) -> bool:
    return last is None or abs(now - last) >= EVERY
