"""Which points are on which copy, since when, and by what proof. Callers commit."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.tables import CopiedPoint, Copy, RecoveryPoint
from service.model import chains
from service.model.copied import CopiedState
from service.model.immutability import Immutability
from service.model.lifecycle import PointState
from service.model.proofs import is_known_bad
from service.records import merging, points, removal


@dataclass(frozen=True)
class ToSend:
    """A sealed point that the copy has not. `why_not`: what is wrong with it, or with a point on which it stands; None: nothing."""

    point_id: str
    folder: str
    why_not: str | None


@dataclass(frozen=True)
class Arrived:
    """A point that is whole on the copy. `checked_by`: `checksum` or `content`. `locked_until`: as the store shows it."""

    point_id: str
    size_bytes: int
    checked_by: str
    locked_until: datetime | None


def to_send(session: Session, copy: Copy, asked: Collection[str] | None) -> list[ToSend]:
    """What is missing there, each after all on which it stands. `asked` None: everything; else those and what is below them."""
    rows = {point.id: point for point in points.of_repository(session, copy.repository_id)}
    parents = {each: tuple(point.parents or ()) for each, point in rows.items()}
    there = {row.point_id for row in of_copy(session, copy.id) if row.state == CopiedState.whole}
    wanted = set(rows) if asked is None else set().union(*(chains.with_all_below(each, parents) for each in asked))
    bad = {each: why for each in wanted if (why := _why_not(rows.get(each))) is not None}
    missing = [each for each in wanted - there if (point := rows.get(each)) is not None and point.state != PointState.leaving]
    ordered = sorted(missing, key=lambda each: (len(chains.with_all_below(each, parents)), rows[each].point_in_time_at, each))
    return [ToSend(each, str(rows[each].folder), _first(chains.with_all_below(each, parents), bad, each)) for each in ordered]


def _why_not(point: RecoveryPoint | None) -> str | None:
    if point is None:
        return "is not on record"
    if point.state != PointState.sealed or is_known_bad(point.proofs):
        return f"is {point.state}" if point.state != PointState.sealed else "is known to be bad"
    return None


def _first(below: Collection[str], bad: Mapping[str, str], point_id: str) -> str | None:
    """Why the point itself is left, or a point on which it stands."""
    for each in [point_id, *sorted(below)]:
        if each in bad:
            return f"point {each} {bad[each]}"
    return None


def begin(session: Session, copy: Copy, point_id: str, job_id: str) -> RecoveryPoint | None:
    """From now on nothing gives the point up while the job works. None: it is not sealed any more, or is gone."""
    now = removal.turn_of(session, copy.repository_id)
    point = session.get(RecoveryPoint, point_id, populate_existing=True)
    if point is None or point.state != PointState.sealed or point.folder is None:
        return None
    if merging.being_replaced(session, copy.repository_id, point.domain_id, [point_id]):
        # The next job sends it.
        return None
    row = CopiedPoint(
        copy_id=copy.id,
        point_id=point.id,
        state=CopiedState.sending.value,
        folder=point.folder,
        domain_id=point.domain_id,
        domain_name=point.domain_name,
        point_in_time_at=point.point_in_time_at,
        verdict=point.verdict,
        parents=list(point.parents or ()),
        manifest_digest=point.manifest_digest,
        size_bytes=point.size_bytes,
        job_id=job_id,
        begun_at=now,
        sent_at=None,
        checked_at=None,
        checked_by=None,
        locked_until=None,
        removed_at=None,
    )
    session.merge(row)
    return point


def note_sent(session: Session, copy: Copy, arrived: Arrived, now: datetime) -> None:
    values = {"state": CopiedState.whole.value, "size_bytes": arrived.size_bytes, "locked_until": arrived.locked_until}
    _change(session, copy.id, arrived.point_id, **values, sent_at=now, checked_at=now, checked_by=arrived.checked_by)
    tell_retained(session, [arrived.point_id])


def note_not_sent(session: Session, copy: Copy, point_id: str) -> None:
    """A part of it may be there. It stays on record as such, so that nobody takes it for whole, and no job has the point any more."""
    _change(session, copy.id, point_id, job_id="")


def note_lengthened(session: Session, copy: Copy, point_id: str, until: datetime) -> None:
    _change(session, copy.id, point_id, locked_until=until)
    tell_retained(session, [point_id])


def note_checked(session: Session, copy: Copy, point_id: str, *, is_good: bool, now: datetime) -> None:
    state = CopiedState.whole if is_good else CopiedState.damaged
    _change(session, copy.id, point_id, state=state.value, checked_at=now, checked_by="content")
    tell_retained(session, [point_id])


def is_on(session: Session, copy: Copy, point_id: str) -> bool:
    """In whatever state."""
    return session.get(CopiedPoint, (copy.id, point_id)) is not None


def of_copy(session: Session, copy_id: str) -> Sequence[CopiedPoint]:
    """Oldest first."""
    rows = select(CopiedPoint).where(CopiedPoint.copy_id == copy_id)
    return session.scalars(rows.order_by(CopiedPoint.point_in_time_at, CopiedPoint.point_id)).all()


def whole_with_all_below(session: Session, copy_id: str, asked: Collection[str]) -> tuple[list[CopiedPoint], list[str]]:
    """The points that are asked for and what they stand on, bases first; and the ids of those that are not whole on the copy."""
    there = {row.point_id: row for row in of_copy(session, copy_id)}
    parents = {row.point_id: tuple(row.parents) for row in there.values()}
    wanted = set().union(*(chains.with_all_below(each, parents) for each in asked))
    missing = sorted(each for each in wanted if each not in there or there[each].state != CopiedState.whole)
    rows = [there[each] for each in wanted - set(missing)]
    return sorted(rows, key=lambda row: (len(chains.with_all_below(row.point_id, parents)), row.point_id)), missing


def tell_retained(session: Session, point_ids: Collection[str]) -> None:
    """Until when a copy keeps each point whatever happens: only a store that was proven to keep its locks counts."""
    latest = (
        select(CopiedPoint.point_id, func.max(CopiedPoint.locked_until).label("until"))
        .join(Copy, Copy.id == CopiedPoint.copy_id)
        .where(Copy.immutability == Immutability.immutable.value, CopiedPoint.state == CopiedState.whole.value)
        .where(CopiedPoint.point_id.in_(point_ids))
        .group_by(CopiedPoint.point_id)
    )
    until = {row.point_id: row.until for row in session.execute(latest)}
    for point_id in point_ids:
        points.set_retained(session, point_id, until.get(point_id))


def places_of(session: Session, point_id: str) -> list[dict[str, Any]]:
    """The copies that have the point whole, by name, and until when each keeps it."""
    rows = (
        select(Copy.id, Copy.name, Copy.immutability, CopiedPoint.locked_until)
        .join(CopiedPoint, CopiedPoint.copy_id == Copy.id)
        .where(CopiedPoint.point_id == point_id, CopiedPoint.state == CopiedState.whole.value)
        .order_by(Copy.name)
    )
    return [
        {
            "id": row.id,
            "name": row.name,
            "retained_until": rfc3339(row.locked_until) if row.locked_until and row.immutability == Immutability.immutable else None,
        }
        for row in session.execute(rows)
    ]


def _change(session: Session, copy_id: str, point_id: str, **values: Any) -> None:
    session.execute(update(CopiedPoint).where(CopiedPoint.copy_id == copy_id, CopiedPoint.point_id == point_id).values(values))
