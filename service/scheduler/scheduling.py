"""Begins what is due: a thread of each process of the service. There may be any number of them, and none of them leads.

The schedules are on record with the time at which each must be looked at next. One transaction moves that time, records what became of
the run, and adds its job, so a run has one outcome however many processes look, and wherever a process dies.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime

from prometheus_client import Counter, Histogram
from sqlalchemy.orm import Session

from service import log
from service.config import Settings
from service.db.engine import Database, database_now
from service.errors import DatabaseUnavailable
from service.model.schedule import JUMP_BELIEVED_S, Outcome, Reason, is_clock_believed
from service.records import schedules
from service.records.policy_book import PolicyReader
from service.scheduler.covering import Covering, last_covered
from service.scheduler.settling import Settled, settle

LOOK_S = 1.0
"""Seconds between two looks for a policy that was changed, and for a schedule that another process has made."""
FAILED_S = 5.0
"""Seconds until the next look after an error."""
WRITE_S = 0.050
"""Seconds. After a transaction that took longer the next one decides fewer schedules, because on SQLite all other writers wait for it."""
MAX_AT_ONCE = 50
"""Schedules that one transaction decides at most."""
MIN_AT_ONCE = 5
"""Schedules that one transaction decides at least."""
MAX_REST_S = 0.020
"""Seconds. After each transaction the thread rests as long as the transaction took, and at most for so long."""
SET_ASIDE_S = 600.0
"""Seconds for which a schedule that cannot be decided because of a fault is left out. The others are decided meanwhile."""
_LATE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3_600.0, 86_400.0)

RUNS = Counter("stillpoint_schedule_runs", "Due runs that this process decided, by what became of them, and why", ["outcome", "reason"])
_OF_MISSED = (Reason.too_late, Reason.newer_due)
RUNS.labels(outcome=Outcome.queued.value, reason="")
for _reason in Reason:
    # Known from the start: an alarm on the increase of a counter never sees the first step of one that begins at 1.
    RUNS.labels(outcome=(Outcome.missed if _reason in _OF_MISSED else Outcome.skipped).value, reason=_reason.value)
LATE_SECONDS = Histogram(
    "stillpoint_schedule_late_seconds", "From the time at which a run was to begin until its job was made", buckets=_LATE
)

_logger = log.get(__name__)


class Scheduler:
    """One look after the other, in one thread. `wake`: called when jobs were made."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        wake: Callable[[], object] = lambda: None,
        stopping: threading.Event | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[Session], datetime] = database_now,
    ) -> None:
        self._database = database
        self._wake = wake
        self._stopping = stopping or threading.Event()
        self._monotonic = monotonic
        self._clock = clock
        self._queue_limit = settings.queued_per_domain
        self._reader = PolicyReader()
        self._covering = Covering(database, self._reader, settings.queued_per_domain, note=self._note, clock=clock)
        self._jump_seen: float | None = None
        self._at_once = MIN_AT_ONCE
        #: Until when a schedule is left out.
        self._aside: dict[str, float] = {}

    def look(self) -> float:
        """Decide what is due. Returns the seconds until the next look. Raises DatabaseUnavailable."""
        with self._database.read() as session:
            now, last = self._clock(session), last_covered(session)
            book = self._reader.book(session)
        if not self._is_believed(last, now):
            return LOOK_S
        if self._covering.is_due(book, last, now):
            self._covering.cover()
        while not self._stopping.is_set() and self._fire():
            pass
        with self._database.read() as session:
            fire_at, now = schedules.first_fire_at(session), self._clock(session)
        return min(max((fire_at - now).total_seconds(), 0.0), LOOK_S) if fire_at is not None and not self._aside else LOOK_S

    def _is_believed(self, last: datetime | None, now: datetime) -> bool:
        if is_clock_believed(last, now, 0):
            self._jump_seen = None
            return True
        if self._jump_seen is None:
            self._jump_seen = self._monotonic()
            _logger.warning("clock_may_have_jumped", last_scheduled_at=str(last), now=str(now), believed_in_s=JUMP_BELIEVED_S)
        return is_clock_believed(last, now, self._monotonic() - self._jump_seen)

    def _fire(self) -> bool:
        """Decide the earliest ones. False: nothing more is due now."""
        self._aside = {each: until for each, until in self._aside.items() if until > self._monotonic()}
        with self._database.read() as session:
            book = self._reader.book(session)
            due = schedules.due(session, self._clock(session), self._at_once, apart_from=self._aside, of_no=book.unreadable)
        if not due:
            return False
        began = self._monotonic()
        try:
            self._settle([(row.id, row.policy_id) for row in due])
        except DatabaseUnavailable:
            raise
        except Exception:
            # A fault in one schedule must not keep the others from their time, so each of them is tried alone.
            _logger.exception("schedules_not_decided", schedules=len(due))
            self._one_by_one([(row.id, row.policy_id) for row in due])
        took_s = self._monotonic() - began
        self._at_once = _next_size(self._at_once, took_s)
        self._stopping.wait(min(took_s, MAX_REST_S))
        return True

    def _one_by_one(self, due: list[tuple[str, str]]) -> None:
        for each in due:
            try:
                self._settle([each])
            except DatabaseUnavailable:
                raise
            except Exception:
                # As above.
                _logger.exception("schedule_set_aside", schedule_id=each[0], for_s=SET_ASIDE_S)
                self._aside[each[0]] = self._monotonic() + SET_ASIDE_S

    def _settle(self, due: list[tuple[str, str]]) -> None:
        with self._database.write() as session:
            book = self._reader.book(session, locked={policy_id for _, policy_id in due})
            settled = settle(session, book, [schedule_id for schedule_id, _ in due], self._clock(session), self._queue_limit)
        self._note(settled)

    def _note(self, settled: Settled) -> None:
        for run in settled.runs:
            RUNS.labels(outcome=run.outcome.value, reason=run.reason.value if run.reason is not None else "").inc()
        for started in settled.started:
            LATE_SECONDS.observe(started.late_s)
        if settled.started:
            self._wake()


def _next_size(rows: int, took_s: float) -> int:
    if took_s > WRITE_S:
        return max(MIN_AT_ONCE, rows // 2)
    return min(MAX_AT_ONCE, rows * 2) if took_s < WRITE_S / 3 else rows
