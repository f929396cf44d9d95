"""/metrics of each published domain: the age of its newest point, and whether its last snapshot failed."""

from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import ScalarSelect, select
from sqlalchemy.orm import Session

from service.db.tables import Domain, Job, RecoveryPoint
from service.model.kinds import MAKE_POINT
from service.model.lifecycle import GOOD_POINTS, JobState

MAX_DOMAINS = 5_000
"""Domains with a series of their own. Above the limit there are no such series, because they would cost Prometheus too much."""
ENDED = (JobState.succeeded, JobState.failed)


def protection(session: Session, now: datetime) -> list[Metric]:
    age = GaugeMetricFamily(
        "stillpoint_domain_newest_point_seconds",
        "Age of a domain's newest good recovery point, or without a point, of its first snapshot job. Absent: there was no snapshot job.",
        labels=["domain", "host"],
    )
    failed = GaugeMetricFamily(
        "stillpoint_domain_snapshot_failed",
        "1 when the newest snapshot of a domain that has ended failed, 0 when it succeeded.",
        labels=["domain", "host"],
    )
    rows = select(
        Domain.name,
        Domain.host_id,
        _newest_point().label("newest_point"),
        _first_asked().label("first_asked"),
        _newest_outcome().label("outcome"),
    )
    for row in session.execute(rows.order_by(Domain.name, Domain.host_id).limit(MAX_DOMAINS)):
        since = row.newest_point or row.first_asked
        if since is not None:
            age.add_metric([row.name, row.host_id], max(0.0, (now - since).total_seconds()))
        if row.outcome is not None:
            failed.add_metric([row.name, row.host_id], float(row.outcome == JobState.failed))
    return [age, failed]


def _newest_point() -> ScalarSelect[datetime]:
    of_domain = select(RecoveryPoint.created_at).where(RecoveryPoint.domain_id == Domain.id, RecoveryPoint.state.in_(GOOD_POINTS))
    return of_domain.order_by(RecoveryPoint.created_at.desc(), RecoveryPoint.id.desc()).limit(1).scalar_subquery()


def _first_asked() -> ScalarSelect[datetime]:
    of_domain = select(Job.created_at).where(Job.domain_id == Domain.id, Job.kind.in_(MAKE_POINT))
    return of_domain.order_by(Job.created_at, Job.id).limit(1).scalar_subquery()


def _newest_outcome() -> ScalarSelect[str]:
    ended = select(Job.state).where(Job.domain_id == Domain.id, Job.kind.in_(MAKE_POINT), Job.state.in_(ENDED))
    return ended.order_by(Job.created_at.desc(), Job.id.desc()).limit(1).scalar_subquery()
