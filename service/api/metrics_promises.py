"""/metrics of what policies promise: how many domains are protected, until when each promise holds, and when repositories will be full."""

from collections import Counter
from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.orm import Session

from service.api.metrics_protection import MAX_DOMAINS
from service.model.protection import Protection, ProtectionState
from service.records import protection
from service.records.protection import Landscape

UNTOLD = frozenset({ProtectionState.paused, ProtectionState.tie, ProtectionState.unprotected})
"""Nothing is promised now for a domain in these states, so there is no date at which a promise breaks."""


def promises(session: Session) -> list[Metric]:
    landscape = protection.read(session)
    answers = landscape.protections
    # Above the limit there are no series of single domains, because they would cost Prometheus too much.
    with_series = answers if len(answers) <= MAX_DOMAINS else []
    return [
        _states(answers),
        _deadlines(with_series),
        _ages(with_series, landscape),
        _proofs(answers, landscape),
        *_repositories(landscape),
    ]


def _states(answers: Sequence[Protection]) -> Metric:
    gauge = GaugeMetricFamily("stillpoint_protection_domains", "Domains, by the state of their protection.", labels=["state"])
    counts = Counter(answer.state for answer in answers)
    for state in ProtectionState:
        gauge.add_metric([state.value], counts[state])
    return gauge


def _deadlines(answers: Sequence[Protection]) -> Metric:
    gauge = GaugeMetricFamily(
        "stillpoint_domain_promise_deadline_timestamp_seconds",
        "When the promise of a domain's policy was broken, or will be if no run succeeds. Absent: nothing is promised that ages.",
        labels=["domain", "host", "policy"],
    )
    for answer in answers:
        if answer.broken_at is not None and answer.state not in UNTOLD:
            labels = [answer.domain.name, answer.domain.host.id, answer.policy or ""]
            gauge.add_metric(labels, answer.broken_at.timestamp())
    return gauge


def _ages(answers: Sequence[Protection], landscape: Landscape) -> Metric:
    gauge = GaugeMetricFamily(
        "stillpoint_domain_newest_kept_point_seconds",
        "Age of the newest recovery point with the promised verdict, and the promised proof if one is promised. Absent: there is none.",
        labels=["domain", "host"],
    )
    for answer in answers:
        if answer.newest_kept is not None:
            age_s = (landscape.now - answer.newest_kept.at).total_seconds()
            gauge.add_metric([answer.domain.name, answer.domain.host.id], max(0.0, age_s))
    return gauge


def _proofs(answers: Sequence[Protection], landscape: Landscape) -> Metric:
    gauge = GaugeMetricFamily("stillpoint_protection_proofs_too_old", "Domains whose newest proof is older than promised.")
    gauge.add_metric([], sum(answer.proof is not None and answer.proof.too_old_at <= landscape.now for answer in answers))
    return gauge


def _repositories(landscape: Landscape) -> list[Metric]:
    full = GaugeMetricFamily(
        "stillpoint_repository_full_timestamp_seconds",
        "When a repository will be full, by its free space of the last 14 days. Absent: it does not fill up, or too little is known.",
        labels=["repository"],
    )
    free = GaugeMetricFamily(
        "stillpoint_repository_free_bytes", "Free bytes of a repository, as its worker last saw.", labels=["repository"]
    )
    for repository in landscape.repositories:
        if repository.full_at is not None:
            full.add_metric([repository.name], repository.full_at.timestamp())
        if repository.free_bytes is not None:
            free.add_metric([repository.name], repository.free_bytes)
    return [full, free]
