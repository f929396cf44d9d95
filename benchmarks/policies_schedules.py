"""10,000 schedules: how late their runs begin, and what the scheduler costs. Each is due every ten minutes, spread by its jitter.

That is 17 runs in a second, and six times as many as 10,000 domains have with a backup every hour.
"""

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from benchmarks import interleaving
from benchmarks.databases import KINDS, Databases
from benchmarks.interleaving import Course, Numbers, Plan, Turn
from service.config import Settings
from service.db import schema
from service.db.base import table_of
from service.db.engine import Database, database_now, open_engine
from service.db.tables import Domain, Host, Job
from service.model.backup_policy import BackupPolicy
from service.model.schedule import key_of, start_of
from service.records import policies, schedules
from service.scheduler.scheduling import Scheduler
from service.scheduler.settling import Settled

SCHEDULES = 10_000
EVERY_S = 600
SECONDS = 12.0
"""Of a turn: long enough for a comparison of all domains with their schedules."""
POLICY: dict[str, Any] = {
    "name": "bench",
    "selector": {"all_the_rest": True},
    "tracks": [
        {
            "name": "often",
            "job": {"kind": "snapshot"},
            "schedule": {"cron": "*/10 * * * *", "time_zone": "Europe/Berlin", "jitter_s": EVERY_S - 1},
        }
    ],
}

RULE = BackupPolicy.from_document(POLICY).tracks[0].schedule


def measure(found: Databases, plan: Plan) -> tuple[Course, dict[str, float]]:
    turns: dict[str, Turn] = {}
    with _filled(found) as databases:
        for kind, database in databases.items():
            turns[kind] = partial(_turn, database, _Watched(database))
        measured = interleaving.run("10,000 schedules", turns, plan)
    late = {kind: measured.median(kind, "late_p99_ms") for kind in KINDS}
    share = {kind: measured.median(kind, "cpu_share") for kind in KINDS}
    return measured, {
        # The worse of the two databases.
        "schedule_late_p99_ms": max(late.values()),
        "schedule_cpu_share": max(share.values()),
        **{f"schedule_late_p99_ms: {kind}": late[kind] for kind in KINDS},
        **{f"schedule_cpu_share: {kind}": share[kind] for kind in KINDS},
    }


class _Watched(Scheduler):
    """Keeps how late each run began."""

    def __init__(self, database: Database) -> None:
        super().__init__(Settings(state_dir=Path("/nonexistent")), database)
        self.late_ms: list[float] = []

    def look_for(self, seconds: float) -> None:
        """On a machine that is too busy the looks end nevertheless, and the next turn shows how late it is by then."""
        self._stopping = threading.Event()
        end = threading.Timer(seconds, self._stopping.set)
        end.start()
        while not self._stopping.is_set():
            self._stopping.wait(self.look())
        end.join()

    def _note(self, settled: Settled) -> None:
        super()._note(settled)
        self.late_ms += [started.late_s * 1000 for started in settled.started]


def _turn(database: Database, scheduler: _Watched) -> Numbers:
    """What became due between two turns is left out, and all jobs have ended."""
    _end_jobs(database)
    _leave_out_what_is_due(database)
    scheduler.late_ms.clear()
    cpu_s: list[float] = []

    def run() -> None:
        began = time.thread_time()
        scheduler.look_for(SECONDS)
        cpu_s.append(time.thread_time() - began)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    late = sorted(scheduler.late_ms)
    return {
        "late_p50_ms": statistics.median(late),
        "late_p99_ms": statistics.quantiles(late, n=100, method="inclusive")[98],
        "late_longest_ms": late[-1],
        "runs_per_second": len(late) / SECONDS,
        "cpu_share": cpu_s[0] / SECONDS,
    }


def _end_jobs(database: Database) -> None:
    with database.write() as session:
        session.execute(update(table_of(Job)).where(Job.state == "queued").values(state="succeeded", finished_at=database_now(session)))


@contextmanager
def _filled(found: Databases) -> Iterator[dict[str, Database]]:
    databases = {}
    for kind in KINDS:
        engine = open_engine(found.url(kind, "schedules"))
        schema.migrate(engine)
        databases[kind] = Database(engine)
        _fill(databases[kind])
        _Watched(databases[kind]).look()
        _begin_in_this_period(databases[kind])
    try:
        yield databases
    finally:
        for database in databases.values():
            database.dispose()


def _begin_in_this_period(database: Database) -> None:
    """New schedules begin with the next instant, which may be minutes away. Those whose run of this period is still to come get it."""
    with database.write() as session:
        now = database_now(session)
        _move(session, schedules.everyone(session), datetime.fromtimestamp(now.timestamp() // EVERY_S * EVERY_S, UTC), now)


def _leave_out_what_is_due(database: Database) -> None:
    with database.write() as session:
        now = database_now(session)
        due = [row for row in schedules.everyone(session) if row.fire_at is not None and row.fire_at <= now]
        _move(session, due, datetime.fromtimestamp((now.timestamp() // EVERY_S + 1) * EVERY_S, UTC), now)


def _move(session: Session, rows: Sequence[Any], due_at: datetime, now: datetime) -> None:
    """To an instant, where the run of that instant is still to come."""
    starts = {row.id: start_of(RULE, (), key_of(row.track, row.domain_id), due_at).at for row in rows}
    coming = {row_id: start for row_id, start in starts.items() if start > now}
    schedules.change(session, [{"id": row_id, "next_due_at": due_at, "fire_at": start} for row_id, start in coming.items()])


def _fill(database: Database) -> None:
    with database.write() as session:
        now = database_now(session)
        versions: dict[str, Any] = {"version": "bench", "libvirt_uri": "test:///default", "versions": {}, "libvirt_connected": True}
        session.add(Host(id="bench", started_at=now, last_seen=now + timedelta(days=1), inventory_at=now, **versions))
        session.flush()
        same = {"host_id": "bench", "state": "running", "published_at": now, "document": {"disks": []}}
        session.execute(insert(table_of(Domain)), [{"id": f"domain-{n:05}", "name": f"vm{n:05}", **same} for n in range(SCHEDULES)])
        policies.add(session, BackupPolicy.from_document(POLICY).as_document(), now)
