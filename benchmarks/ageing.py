"""A million jobs: what counting the finished ones costs, and how long others wait while old ones are removed."""

import statistics
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks import databases, filling, interleaving
from benchmarks.databases import KINDS
from benchmarks.interleaving import Course, Numbers, Plan, Turn
from benchmarks.report import Report
from service.api.metrics import FINISHED_JOBS
from service.config import Settings
from service.db import schema
from service.db.engine import Database, open_engine
from service.records import queue
from service.records.new_job import NewJob
from service.scheduler.pruning import Pace, Pruning, due

JOBS = 1_000_000
COUNTS = 3
SECONDS = 3.0
PAUSE_S = 0.005
"""Between two jobs that are created."""


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        found = stack.enter_context(databases.opened())
        turns: dict[str, Turn] = {}
        for kind, database in _filled(found).items():
            stack.callback(database.dispose)
            turns[f"count finished jobs, {kind}"] = partial(_count, database)
            turns[f"create, {kind}"] = partial(_create, database)
            turns[f"create while old jobs are removed, {kind}"] = partial(_create_while_pruning, database)
        course = interleaving.run("a million jobs", turns, plan)
        versions = {"postgresql": found.postgresql_version()}
    return Report("ageing", plan.seed, [course], _figures(course), {"jobs": JOBS, "seconds_per_turn": SECONDS}, versions)


def _figures(course: Course) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind in KINDS:
        pruning = f"create while old jobs are removed, {kind}"
        figures |= {
            f"count_finished_1m_ms: {kind}": course.median(f"count finished jobs, {kind}", "p50_ms"),
            f"create_p99_ms: {kind}": course.median(f"create, {kind}", "p99_ms"),
            f"create_while_pruning_p99_ms: {kind}": course.median(pruning, "p99_ms"),
            f"prune_transaction_p99_ms: {kind}": course.median(pruning, "transaction_p99_ms"),
            f"pruned_jobs_per_second: {kind}": course.median(pruning, "removed_per_second"),
        }
    return figures


def _filled(found: databases.Databases) -> dict[str, Database]:
    urls = {kind: found.url(kind, "jobs_1m") for kind in KINDS}
    for url in urls.values():
        engine = open_engine(url)
        schema.migrate(engine)
        engine.dispose()
    filling.fill_all([(url, JOBS) for url in urls.values()])
    return {kind: Database(open_engine(url)) for kind, url in urls.items()}


def _count(database: Database) -> Numbers:
    spans = []
    for _ in range(COUNTS):
        began = time.perf_counter()
        with database.read() as session:
            session.execute(FINISHED_JOBS).all()
        spans.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": statistics.median(spans)}


def _create(database: Database) -> Numbers:
    new = NewJob("snapshot", "domain", "vm0", "bench", {"kind": "snapshot"}, {"plan": "nightly"})
    spans, until = [], time.monotonic() + SECONDS
    while time.monotonic() < until:
        began = time.perf_counter()
        with database.write() as session:
            queue.enqueue(session, new)
        spans.append((time.perf_counter() - began) * 1000)
        time.sleep(PAUSE_S)
    return {"p50_ms": statistics.median(spans), "p99_ms": _percentile(spans, 99), "longest_ms": max(spans)}


class _Noting(Pace):
    def __init__(self) -> None:
        super().__init__()
        self.spans_ms: list[float] = []

    def note(self, took_s: float) -> None:
        self.spans_ms.append(took_s * 1000)
        super().note(took_s)


def _create_while_pruning(database: Database) -> Numbers:
    stopping, pace, removed = threading.Event(), _Noting(), dict[str, int]()
    all_due = due(Settings(state_dir=Path("/nonexistent"), keep_jobs_days=1), datetime.now(UTC))
    pruning = threading.Thread(target=lambda: removed.update(Pruning(database, stopping, lambda: pace).run(all_due)))
    pruning.start()
    created = _create(database)
    stopping.set()
    pruning.join()
    transactions = {"transaction_p99_ms": _percentile(pace.spans_ms, 99), "transaction_longest_ms": max(pace.spans_ms)}
    return {**created, **transactions, "removed_per_second": removed["jobs"] / SECONDS}


def _percentile(spans: list[float], percent: int) -> float:
    return statistics.quantiles(spans, n=100, method="inclusive")[percent - 1]
