"""/metrics: counts each request, and reads jobs, points, guests and hosts from the database at each scrape."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import Select, func, select, union_all
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.metrics_copies import copies
from service.api.metrics_promises import promises
from service.api.metrics_protection import protection
from service.api.metrics_schedules import schedules
from service.db.engine import Database, database_now
from service.db.tables import Domain, Host, Job, PrunedJobs, RecoveryPoint
from service.db.writable import Trial
from service.errors import DatabaseUnavailable, StillpointError
from service.model.foreign_freeze import JOB, in_one_shape
from service.model.lifecycle import FINAL_STATES, JobState
from service.records import freeze_lease

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TOTALS_SECONDS = 30.0
"""Seconds that the counts of finished jobs and recovery points are kept: counting a million rows for every scrape is too slow."""
MAX_GUESTS = 1_000
"""Frozen guests with a series of their own. Above the limit only the guests that are frozen for longest have one."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNFINISHED = tuple(state.value for state in JobState if state not in FINAL_STATES)


class Metrics:
    """One registry per application, so that two applications in one process do not share their metrics."""

    def __init__(self, database: Database, trial: Trial) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("stillpoint_http_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry)
        self.seconds = Histogram(
            "stillpoint_http_request_seconds", "Time to answer.", ["method", "route"], buckets=BUCKETS, registry=self._registry
        )
        self._registry.register(RecordedState(database, trial))

    def exposition(self) -> bytes:
        """Prometheus text: first the metrics of the worker and the process, then the metrics of this application."""
        return generate_latest(REGISTRY) + generate_latest(self._registry)


class RequestMetrics:
    """Counts and times every request under the template of its route, so that ids do not become labels."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - started)


class RecordedState(Collector):
    """Reads the gauges from the database. If the database is unavailable, a gauge says so, and the other metrics are given."""

    def __init__(self, database: Database, trial: Trial) -> None:
        self._database = database
        self._trial = trial
        self._totals: list[Metric] = []
        self._totals_at: float | None = None

    def describe(self) -> list[Metric]:
        # Registering must not ask the database.
        return []

    def collect(self) -> Iterator[Metric]:
        yield self._writable()
        available = GaugeMetricFamily("stillpoint_database_available", "1 when the database answered this scrape.")
        try:
            with self._database.read() as session:
                now = database_now(session)
                gauges = [_unfinished_jobs(session), _queued_age(session, now), _last_seen(session, now)]
                gauges += _frozen(session, now)
                gauges += schedules(session, now)
                gauges += self._counted_totals(session, now)
                gauges.append(_libvirt(session))
        except DatabaseUnavailable:
            available.add_metric([], 0)
            yield available
            return
        available.add_metric([], 1)
        yield available
        yield from gauges

    def _writable(self) -> Metric:
        gauge = GaugeMetricFamily("stillpoint_database_writable", "1 when the database could be written at this scrape.")
        try:
            self._trial.check()
        except StillpointError:
            gauge.add_metric([], 0)
        else:
            gauge.add_metric([], 1)
        return gauge

    def _counted_totals(self, session: Session, now: datetime) -> list[Metric]:
        at = time.monotonic()
        if self._totals_at is None or at - self._totals_at > TOTALS_SECONDS:
            of_points = [*protection(session, now), *promises(session), *copies(session, now)]
            self._totals = [_finished_jobs(session), _recovery_points(session), *of_points]
            self._totals_at = at
        return self._totals


def _unfinished_jobs(session: Session) -> Metric:
    gauge = GaugeMetricFamily("stillpoint_jobs", "Jobs that are not finished, by state and kind.", labels=["state", "kind"])
    counts = select(Job.state, Job.kind, func.count()).where(Job.state.in_(UNFINISHED)).group_by(Job.state, Job.kind)
    for state, kind, count in session.execute(counts):
        gauge.add_metric([state, kind], count)
    return gauge


def _finished_jobs(session: Session) -> Metric:
    gauge = GaugeMetricFamily(
        "stillpoint_jobs_finished",
        "Jobs that have finished, by state and kind, with those that were pruned since then. The number never falls.",
        labels=["state", "kind"],
    )
    for state, kind, count in session.execute(FINISHED_JOBS):
        gauge.add_metric([state, kind], count)
    return gauge


def _finished_jobs_statement() -> Select[str, str, int]:
    """Reads only an index, and is one statement: between two statements a job could be pruned, and be counted twice."""
    on_record = select(Job.state, Job.kind, func.count().label("count"))
    on_record = on_record.where(Job.state.in_([state.value for state in FINAL_STATES])).group_by(Job.state, Job.kind)
    both = union_all(on_record, select(PrunedJobs.state, PrunedJobs.kind, PrunedJobs.count)).subquery()
    return select(both.c.state, both.c.kind, func.sum(both.c.count)).group_by(both.c.state, both.c.kind)


FINISHED_JOBS = _finished_jobs_statement()


def _queued_age(session: Session, now: datetime) -> Metric:
    gauge = GaugeMetricFamily(
        "stillpoint_oldest_queued_job_seconds", "Age of the oldest job that is still queued, by host.", labels=["host"]
    )
    oldest = (
        select(Job.host_id, func.min(Job.created_at, type_=Job.created_at.type)).where(Job.state == JobState.queued).group_by(Job.host_id)
    )
    for host, created_at in session.execute(oldest):
        gauge.add_metric([host], max(0.0, (now - created_at).total_seconds()))
    return gauge


def _recovery_points(session: Session) -> Metric:
    gauge = GaugeMetricFamily("stillpoint_recovery_points", "Recovery points, by verdict.", labels=["verdict"])
    for verdict, count in session.execute(select(RecoveryPoint.verdict, func.count()).group_by(RecoveryPoint.verdict)):
        gauge.add_metric([verdict], count)
    return gauge


@dataclass(frozen=True)
class _FrozenGuest:
    """`limit_s` None: another client has frozen the guest, for an unknown time."""

    since: datetime
    limit_s: float | None


def _frozen(session: Session, now: datetime) -> list[Metric]:
    """Reads only the database, so that guests which a dead worker left frozen are reported as well."""
    count = GaugeMetricFamily(
        "stillpoint_guests_frozen", "Guests that are or may be frozen, by a job or by another client, by host.", labels=["host"]
    )
    seconds = GaugeMetricFamily(
        "stillpoint_guest_frozen_seconds",
        "Seconds since freeze was sent by a job that runs, or since a freeze of another client was first seen.",
        labels=["domain", "host"],
    )
    deadline = GaugeMetricFamily(
        "stillpoint_guest_frozen_deadline_seconds",
        "Seconds after which Stillpoint has promised the guest to be thawed; 0: its thaw was never answered. Absent: not its freeze.",
        labels=["domain", "host"],
    )
    guests = _frozen_guests(session)
    places = [host for _, host in guests]
    for host in session.scalars(select(Host.id)):
        count.add_metric([host], places.count(host))
    for (domain, host), guest in sorted(guests.items(), key=lambda item: item[1].since)[:MAX_GUESTS]:
        seconds.add_metric([domain, host], max(0.0, (now - guest.since).total_seconds()))
        if guest.limit_s is not None:
            deadline.add_metric([domain, host], guest.limit_s)
    return [count, seconds, deadline]


def _frozen_guests(session: Session) -> dict[tuple[str, str], _FrozenGuest]:
    """By name and host: the freezes that hosts saw. A freeze of a running job replaces them, because the job knows more."""
    since, by = Domain.document["frozen_since"].as_string(), Domain.document["frozen_by"]
    foreign = select(Domain.name, Domain.host_id, since.label("since"), by.label("by")).where(since.is_not(None))
    guests = {
        (row.name, row.host_id): _FrozenGuest(datetime.fromisoformat(row.since), 0.0 if _is_ours(row.by) else None)
        for row in session.execute(foreign)
    }
    for window in freeze_lease.open_windows(session):
        guests[window.domain_name, window.host_id] = _FrozenGuest(window.since, window.limit_s)
    return guests


def _is_ours(published: Any) -> bool:
    by = in_one_shape(published)
    return by is not None and by["kind"] == JOB


def _libvirt(session: Session) -> Metric:
    gauge = GaugeMetricFamily(
        "stillpoint_host_libvirt_connected", "1 when the worker of a host reached its libvirt when it last reported.", labels=["host"]
    )
    for host, connected in session.execute(select(Host.id, Host.libvirt_connected)):
        gauge.add_metric([host], float(connected))
    return gauge


def _last_seen(session: Session, now: datetime) -> Metric:
    gauge = GaugeMetricFamily("stillpoint_host_last_seen_seconds", "Seconds since the worker of a host last reported.", labels=["host"])
    for host, last_seen in session.execute(select(Host.id, Host.last_seen)):
        gauge.add_metric([host], max(0.0, (now - last_seen).total_seconds()))
    return gauge
