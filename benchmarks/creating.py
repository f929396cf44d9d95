"""Creating jobs while a worker runs them: how long the slowest wait. And what a long queue costs a claim, on SQLite."""

import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks import databases, interleaving, load
from benchmarks.interleaving import Course, Plan
from benchmarks.load import Load, request_bytes
from benchmarks.report import Report
from benchmarks.service_process import ServiceProcess
from service.db import schema
from service.db.engine import Database, open_engine
from service.db.tables import Job
from service.model.lifecycle import JobState
from service.records import queue
from service.records.locks import domain_key

CLIENTS = (8, 64)
SECONDS = 1.2
BACKLOG = 10_000
CLAIMS = 20
BODY = b'{"kind": "preflight", "domain": "test"}'
#: libvirt's own driver for tests: it has one domain, `test`, so the worker runs every job, and no guest is in the way.
SETTINGS = {"STILLPOINT_LIBVIRT_URI": "test:///default", "STILLPOINT_QUEUED_PER_DOMAIN": "1000000"}


def report(plan: Plan) -> Report:
    course, figures = measure(plan)
    return Report("create", plan.seed, [course], figures)


def measure(plan: Plan) -> tuple[Course, dict[str, float]]:
    """A refusal of any request (503) ends the benchmark with LabError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-bench-", dir="/var/tmp")))
        service = stack.enter_context(ServiceProcess("all", folder / "state", SETTINGS))
        service.client().wait_known("test")
        on_postgresql = stack.enter_context(_on_postgresql(folder))
        on_postgresql.client().wait_known("test")
        generator = stack.enter_context(load.generator())
        backlog = _backlog(folder / "backlog.db")
        stack.callback(backlog.dispose)
        turns: dict[str, interleaving.Turn] = {f"create, {clients} clients": _turn(generator, service, clients) for clients in CLIENTS}
        turns["create on PostgreSQL"] = _turn(generator, on_postgresql, CLIENTS[0])
        turns["claim with a backlog"] = lambda: {"p50_ms": _claim_ms(backlog)}
        course = interleaving.run("creating jobs", turns, plan)
    figures = {
        "api_create_p99_ms": course.median(f"create, {CLIENTS[0]} clients", "p99_ms"),
        "api_create_64_clients_p99_ms": course.median(f"create, {CLIENTS[1]} clients", "p99_ms"),
        "api_create_postgresql_p50_ms": course.median("create on PostgreSQL", "p50_ms"),
        "api_create_postgresql_p99_ms": course.median("create on PostgreSQL", "p99_ms"),
        "claim_10k_backlog_ms": course.median("claim with a backlog", "p50_ms"),
    }
    return course, figures


@contextmanager
def _on_postgresql(folder: Path) -> Iterator[ServiceProcess]:
    with databases.opened() as found:
        settings = {**SETTINGS, "STILLPOINT_DATABASE_URL": found.url("postgresql", "creating")}
        with ServiceProcess("all", folder / "state-postgresql", settings) as service:
            yield service


def _turn(generator: ProcessPoolExecutor, service: ServiceProcess, clients: int) -> interleaving.Turn:
    asked = Load(service.port, request_bytes("POST", "/api/v1/jobs", service.token, BODY), 202, clients, SECONDS)

    def turn() -> interleaving.Numbers:
        outcome = generator.submit(load.run, asked).result()
        return {"per_second": outcome.per_second, "p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms}

    return turn


def _backlog(path: Path) -> Database:
    """10,000 jobs of a domain wait, and one of them runs; a job of another domain waits behind them."""
    engine = open_engine(f"sqlite:///{path}")
    schema.migrate(engine)
    database = Database(engine)
    with database.write() as session:
        queue.ensure_slots(session, "host:bench:quick", 4)
        session.execute(insert(Job), [_job("busy", JobState.running), *(_job("busy") for _ in range(BACKLOG)), _job("idle")])
    return database


def _job(domain: str, state: JobState = JobState.queued) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": str(uuid.uuid4()),
        "kind": "snapshot",
        "state": state.value,
        "domain_id": domain,
        "domain_name": domain,
        "host_id": "bench",
        "lock_key": domain_key(domain),
        "request": {},
        "labels": {},
        "phases": [],
        "verdict_reasons": [],
        **dict.fromkeys(("created_at", "run_after", "updated_at"), now),
    }


def _claim_ms(database: Database) -> float:
    """From the look to the claim, which is taken back."""
    spans = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        with database.read() as session:
            queue.next_kind(session, "bench")
        with database.write() as session:
            assert queue.claim(session, "bench", "bench", 60) is not None
            session.rollback()
        spans.append((time.perf_counter() - began) * 1000)
    return statistics.median(spans)
