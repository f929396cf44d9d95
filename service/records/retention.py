"""What retention says of the points on record: which go, which stay, and why. Nothing is changed here.

All points of a domain are judged together, wherever they lie: what a point needs stays, and a track that has moved to another repository
is kept as one. A repository that is away is left out: what cannot be read now must not push out what can.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, select
from sqlalchemy.orm import Session

from service.db.tables import Policy, RecoveryPoint, Repository
from service.errors import PolicyInvalid
from service.model.backup_policy import BackupPolicy
from service.model.lifecycle import PointState
from service.model.origin import Origin
from service.model.proofs import is_known_bad
from service.model.repository import RepositoryState
from service.model.retention import Decision, Goes, Ground, Point, Stays, keep_each
from service.model.retention_terms import Policies, Trial, terms_of
from service.model.verdict import Verdict
from service.records.removal import Neighbours

READABLE = frozenset({RepositoryState.ready, RepositoryState.full, RepositoryState.read_only})
"""The points of a repository in one of these states count."""
_VERDICTS: Mapping[str, Verdict] = {verdict.value: verdict for verdict in Verdict}
_COLUMNS = (
    RecoveryPoint.id,
    RecoveryPoint.domain_id,
    RecoveryPoint.domain_name,
    RecoveryPoint.repository_id,
    RecoveryPoint.folder,
    RecoveryPoint.point_in_time_at,
    RecoveryPoint.size_bytes,
    RecoveryPoint.state,
    RecoveryPoint.pinned,
    RecoveryPoint.verdict,
    # As text: most of the time would go into reading JSON of which hardly anything is needed.
    cast(RecoveryPoint.labels, Text).label("labels"),
    cast(RecoveryPoint.parents, Text).label("parents"),
    # Most of the bytes of a row, and needed only where a proof may say that the point is bad.
    case((cast(RecoveryPoint.proofs, Text).contains("false"), cast(RecoveryPoint.proofs, Text)), else_=None).label("proofs"),
)
_NEWEST = attrgetter("point_in_time_at", "id")


@dataclass(slots=True)
class Judged:
    """`point`: its row, with the columns that are needed to judge and to tell. `origin` None: the point is not of a policy."""

    point: Any
    origin: Origin | None
    decision: Decision

    @property
    def parents(self) -> tuple[str, ...]:
        return _parents(self.point.parents)


def judge(session: Session, of_domains: ColumnElement[bool], now: datetime, trial: Trial | None = None) -> list[Judged]:
    """Newest first. `of_domains` must choose all points of each domain, or none."""
    # Sorted here, as a database would put tens of thousands of wide rows into a file for that.
    rows = sorted(session.connection().execute(select(*_COLUMNS).where(of_domains)).all(), key=_NEWEST, reverse=True)
    origins = {row.id: _origin(row.labels) for row in rows}
    away = _repositories_away(session)
    known_before = {row.id: decision for row in rows if (decision := _known_before(row, away)) is not None}
    others = [row for row in rows if row.id not in known_before]
    points = {row.id: _point(row, origins[row.id]) for row in others}
    by_rules = _by_rules(points.values(), origins, read_policies(session), now, trial)
    decisions = known_before | by_rules | _in_use(session, others, points, by_rules)
    return [Judged(row, origins[row.id], decisions[row.id]) for row in rows]


def read_policies(session: Session) -> Policies:
    return {row.name: _read(row.document) for row in session.execute(select(Policy.name, Policy.document))}


def _read(document: Mapping[str, Any]) -> BackupPolicy | None:
    try:
        return BackupPolicy.from_document(document)
    except PolicyInvalid:
        # A newer version has written it.
        return None


def _repositories_away(session: Session) -> dict[str, Ground]:
    rows = session.execute(select(Repository.id, Repository.name, Repository.state))
    return {
        row.id: Ground(Stays.repository_away, {"repository": row.name, "state": row.state}) for row in rows if row.state not in READABLE
    }


def _known_before(row: Any, away: Mapping[str, Ground]) -> Decision | None:
    """None: the rules judge the point."""
    if row.repository_id is None:
        return Decision(True, (Ground(Stays.not_in_repository),))
    if row.state == PointState.leaving:
        return Decision(False, (Ground(Goes.leaving),))
    if row.repository_id in away:
        return Decision(True, (away[row.repository_id],))
    return None


def _by_rules(
    points: Collection[Point], origins: Mapping[str, Origin | None], policies: Policies, now: datetime, trial: Trial | None
) -> dict[str, Decision]:
    by_origin = {origin: terms_of(origin, policies, trial) for origin in set(origins.values())}
    return keep_each(points, {point.group: by_origin[origins[point.id]] for point in points}, now)


def _point(row: Any, origin: Origin | None) -> Point:
    return Point(
        id=row.id,
        at=row.point_in_time_at,
        parents=_parents(row.parents),
        is_good=row.state == PointState.sealed and not _is_known_bad(row.proofs),
        domain_id=row.domain_id,
        track=f"{origin.policy}/{origin.track}" if origin is not None else None,
        pinned=row.pinned,
        verdict=_VERDICTS.get(row.verdict, Verdict.none),
    )


@lru_cache(maxsize=10_000)
def _origin(labels: str | None) -> Origin | None:
    """Most points have the labels of their track, and no others."""
    return Origin.of(json.loads(labels or "{}"))


def _parents(parents: str | None) -> tuple[str, ...]:
    return tuple(json.loads(parents) or ()) if parents and parents != "[]" else ()


def _is_known_bad(proofs: str | None) -> bool:
    return proofs is not None and is_known_bad(json.loads(proofs))


def _in_use(session: Session, rows: Sequence[Any], points: Mapping[str, Point], decisions: Mapping[str, Decision]) -> dict[str, Decision]:
    """The points that would go, and do not now: a job or a domain needs them."""
    used: dict[str, Decision] = {}
    for repository_id in sorted({row.repository_id for row in rows if not decisions[row.id].stays}):
        there = [row for row in rows if row.repository_id == repository_id]
        neighbours = Neighbours.among(session, repository_id, there, {row.id: points[row.id].parents for row in there})
        for point_id in {*neighbours.used_by, *neighbours.read_by} & points.keys():
            jobs, domains = sorted(neighbours.used_by.get(point_id, ())), sorted(neighbours.read_by.get(point_id, ()))
            if not decisions[point_id].stays:
                used[point_id] = Decision(True, (Ground(Stays.in_use, {"jobs": jobs, "domains": domains}),))
    return used
