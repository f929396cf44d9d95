"""/metrics of copies of repositories: how far each is behind, and whether its store keeps its locks."""

from collections.abc import Callable, Mapping
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.orm import Session

from service.model.copy_standing import CopyStanding
from service.records import copy_standings

_LABELS: Mapping[str, Callable[[CopyStanding], str]] = {"repository": lambda copy: copy.repository, "copy": lambda copy: copy.name}
Value = Callable[[CopyStanding], float | None]
"""None: the copy has no series."""


def copies(session: Session, now: datetime) -> list[Metric]:
    standings = copy_standings.read(session)

    def age(at: datetime | None) -> float | None:
        return max(0.0, (now - at).total_seconds()) if at is not None else None

    gauges: dict[str, tuple[str, Value]] = {
        "stillpoint_copy_newest_point_seconds": (
            "Age of the newest recovery point that is whole on a copy. Absent: there is none.",
            lambda copy: age(copy.newest_at),
        ),
        "stillpoint_copy_points_waiting": ("Points that a policy wants on a copy, and that are not there.", lambda copy: copy.waiting),
        "stillpoint_copy_waiting_seconds": (
            "Since the first point that waits for a copy could be sent. 0: no point waits.",
            lambda copy: age(copy.waiting_since) or 0.0,
        ),
        "stillpoint_copy_points_damaged": ("Points on a copy that are not what was sent.", lambda copy: copy.damaged),
        "stillpoint_copy_lock_kept": (
            "1 when the last attack on a copy's sentinel failed as it should, and otherwise 0. Absent: no lock is asked for.",
            lambda copy: float(copy.keeps_locks) if copy.asks_for_locks else None,
        ),
        "stillpoint_copy_proven_seconds": (
            "Since the last attack on a copy's sentinel, or since the copy was registered. Absent: no lock is asked for.",
            lambda copy: age(copy.proven_at or copy.created_at) if copy.asks_for_locks else None,
        ),
        "stillpoint_copy_locked_until_timestamp_seconds": (
            "The end of the last lock that the store of a copy shows. Absent: it shows none.",
            lambda copy: copy.locked_until.timestamp() if copy.locked_until is not None else None,
        ),
    }
    return [_gauge(name, text, value, standings) for name, (text, value) in gauges.items()]


def _gauge(name: str, text: str, value: Value, standings: list[CopyStanding]) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=tuple(_LABELS))
    for copy in standings:
        if (known := value(copy)) is not None:
            gauge.add_metric([of(copy) for of in _LABELS.values()], known)
    return gauge
