"""The rows of recovery points, and the only place that changes their `state`. Callers commit."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Insert, Select, Update, delete, func, insert, select, update
from sqlalchemy.orm import Session

from service.db import documents
from service.db.base import table_of
from service.db.tables import Event, RecoveryPoint
from service.errors import PointLeaving, RecoveryPointNotFound
from service.model import chains
from service.model.chains import Link
from service.model.documents import texts_of_point
from service.model.lifecycle import PointState, point_may_move
from service.model.proofs import Proof, is_known_bad, with_new
from service.records import events, proven_points
from service.records.events import EventKind, Move

_POINTS = table_of(RecoveryPoint)
_SUBJECT: events.Subject = {
    Event.point_id: RecoveryPoint.id,
    Event.job_id: RecoveryPoint.job_id,
    Event.domain_id: RecoveryPoint.domain_id,
    Event.domain_name: RecoveryPoint.domain_name,
    Event.host_id: RecoveryPoint.host_id,
}


def add(session: Session, point: RecoveryPoint, now: datetime) -> None:
    """A point that was taken, or that was sealed in a repository. `now`: by the clock of the database, because the points of all hosts
    stand in one list."""
    point.created_at = now
    insert_point(session, point, now=now, facts={"verdict": point.verdict})


def insert_point(session: Session, point: RecoveryPoint, *, now: datetime, facts: dict[str, Any]) -> None:
    """`point.created_at` says where it stands in the list."""
    values = {column.key: getattr(point, column.key) for column in _POINTS.columns if column.key != "state"}
    values |= {"pinned": bool(point.pinned), "is_encrypted": bool(point.is_encrypted)}
    to = PointState.taken if point.repository_id is None else PointState.sealed
    values |= texts_of_point(SimpleNamespace(**values, state=to.value))
    move(session, insert(_POINTS).values(values), None, to, now=now, facts=facts)


def move(
    session: Session, change: Insert | Update, source: PointState | None, to: PointState, *, now: datetime, facts: dict[str, Any]
) -> Sequence[Any]:
    """Make the change, with which points go from `source` to `to`, and record its events. Returns the subjects of the events.

    An insert comes from None, and brings the text of the point along. An update reaches only points that are in `source`.
    Raises ValueError for a move that the table of moves does not have.
    """
    if not point_may_move(source, to) or isinstance(change, Insert) is not (source is None):
        raise ValueError(f"a recovery point cannot go from {source} to {to}")
    if isinstance(change, Update) and source is not None:
        change = change.where(RecoveryPoint.state == source)
    moved = events.carry_out(session, change.values(state=to.value), Move(EventKind.recovery_point, source, to, now, facts), _SUBJECT)
    if source is not None:
        documents.write_points(session.connection(), moved)
    return moved


# --- what is known of a point ---------------------------------------------------------------------


def get(session: Session, point_id: str) -> RecoveryPoint:
    """Raises RecoveryPointNotFound."""
    point = session.get(RecoveryPoint, point_id, populate_existing=True)
    if point is None:
        raise RecoveryPointNotFound(recovery_point_id=point_id)
    return point


def set_state(session: Session, point_id: str, to: PointState, *, now: datetime, facts: dict[str, Any] | None = None) -> bool:
    """Returns whether the state changed. Raises RecoveryPointNotFound, and ValueError for a move that the table of moves does not have."""
    source = PointState(_locked(session, point_id).state)
    if source is to:
        return False
    move(session, update(_POINTS).where(_POINTS.c.id == point_id), source, to, now=now, facts=facts or {})
    return True


def add_proofs(session: Session, point_id: str, proofs: Sequence[Proof], now: datetime) -> None:
    """Raises RecoveryPointNotFound."""
    known = _locked(session, point_id).proofs
    set_proofs(session, point_id, with_new(known, [proof.as_document(now) for proof in proofs]))


def change_proofs(session: Session, point_id: str, changed: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """The same proofs with other facts. Raises RecoveryPointNotFound."""
    known = _locked(session, point_id).proofs
    set_proofs(session, point_id, [dict(changed(proof)) for proof in known or ()])


def set_proofs(session: Session, point_id: str, proofs: Sequence[Mapping[str, Any]]) -> None:
    """In the place of all that the point had."""
    change(session, point_id, proofs=proofs)
    proven_points.write(session, point_id, proofs)


def lock(session: Session, point_ids: Collection[str]) -> None:
    """Nobody else changes these points until the end of the transaction. In one order, as otherwise two could wait for each other."""
    rows = select(_POINTS.c.id).where(_POINTS.c.id.in_(point_ids)).order_by(_POINTS.c.point_in_time_at, _POINTS.c.id)
    session.execute(rows.with_for_update()).all()


def set_pinned(session: Session, point_id: str, *, pinned: bool) -> str:
    """Returns the document of the point. Raises RecoveryPointNotFound, PointLeaving."""
    if _locked(session, point_id).state == PointState.leaving:
        raise PointLeaving(point=point_id)
    change(session, point_id, pinned=pinned)
    document = get(session, point_id).document
    assert document is not None
    return document


def set_retained(session: Session, point_id: str, until: datetime | None) -> None:
    """Until when a copy keeps it. A point that is not on record any more is left out."""
    there = session.scalar(select(_POINTS.c.retained_until).where(_POINTS.c.id == point_id))
    if there != until:
        change(session, point_id, retained_until=until)


def _locked(session: Session, point_id: str) -> Any:
    row = session.execute(select(_POINTS.c.state, _POINTS.c.proofs).where(_POINTS.c.id == point_id).with_for_update()).first()
    if row is None:
        raise RecoveryPointNotFound(recovery_point_id=point_id)
    return row


def change(session: Session, point_id: str, **values: Any) -> None:
    """Other values of columns, but never of `state`. The text of the point follows."""
    changed = update(_POINTS).where(_POINTS.c.id == point_id).values(values).returning(*_POINTS.columns)
    documents.write_points(session.connection(), session.execute(changed).all())


# --- the points of a domain and of a repository ---------------------------------------------------


def last_sealed(session: Session, domain_id: str, repository_id: str) -> RecoveryPoint | None:
    """The newest point of the domain there that is not known to be bad: what the next increment can stand on."""
    sealed = _newest_first(domain_id, repository_id).where(RecoveryPoint.state == PointState.sealed.value)
    return next((point for point in session.scalars(sealed) if not is_known_bad(point.proofs)), None)


def last_of(session: Session, domain_id: str, repository_id: str) -> RecoveryPoint | None:
    """The newest point of the domain there, in whatever state."""
    return session.scalars(_newest_first(domain_id, repository_id)).first()


def _newest_first(domain_id: str, repository_id: str) -> Select[RecoveryPoint]:
    there = select(RecoveryPoint).where(RecoveryPoint.domain_id == domain_id, RecoveryPoint.repository_id == repository_id)
    # By the clock of the database: the clock of a host may go back, and an older point would then count as the last one for hours.
    # The points of one import have the same time there.
    return there.order_by(RecoveryPoint.created_at.desc(), RecoveryPoint.point_in_time_at.desc(), RecoveryPoint.id.desc())


def next_good(session: Session, point: RecoveryPoint) -> str | None:
    """The id of the point to restore instead: see `service.model.chains.next_good`."""
    return chains.next_good(point.id, links_of_domain(session, point.domain_id))


def links_of_domain(session: Session, domain_id: str) -> list[Link]:
    """The points of the domain that lie in repositories."""
    columns = (RecoveryPoint.id, RecoveryPoint.point_in_time_at, RecoveryPoint.parents, RecoveryPoint.state, RecoveryPoint.proofs)
    rows = session.execute(select(*columns).where(RecoveryPoint.domain_id == domain_id, RecoveryPoint.repository_id.is_not(None)))
    return [
        Link(row.id, row.point_in_time_at, tuple(row.parents or ()), row.state == PointState.sealed and not is_known_bad(row.proofs))
        for row in rows
    ]


def sizes_of(session: Session, point_ids: Sequence[str]) -> list[int]:
    """Stored bytes, in the order of the ids."""
    rows = session.execute(select(RecoveryPoint.id, RecoveryPoint.size_bytes).where(RecoveryPoint.id.in_(point_ids)))
    sizes = {row.id: row.size_bytes for row in rows}
    return [sizes.get(point_id) or 0 for point_id in point_ids]


def of_repository(session: Session, repository_id: str) -> list[RecoveryPoint]:
    """Oldest first."""
    rows = select(RecoveryPoint).where(RecoveryPoint.repository_id == repository_id)
    return list(session.scalars(rows.order_by(RecoveryPoint.point_in_time_at, RecoveryPoint.id)))


def note_missing(session: Session, repository_id: str, present: Collection[str], *, now: datetime) -> list[str]:
    """The points on record whose folder is not there become `missing`. Returns their ids. `present`: the ids of all points there."""
    known = (PointState.missing, PointState.leaving)
    gone = [point for point in of_repository(session, repository_id) if point.id not in present and point.state not in known]
    for point in gone:
        set_state(session, point.id, PointState.missing, now=now)
    return [point.id for point in gone]


def tell_repository(session: Session, repository_id: str) -> None:
    """Write the texts of its points, after the repository got another id."""
    rows = session.execute(select(_POINTS).where(_POINTS.c.repository_id == repository_id)).all()
    documents.write_points(session.connection(), rows)


def count_in(session: Session, repository_id: str) -> int:
    return session.scalar(select(func.count()).select_from(RecoveryPoint).where(RecoveryPoint.repository_id == repository_id)) or 0


def forget_of(session: Session, repository_id: str) -> Iterable[str]:
    """Take the points of a repository off the list. Their files stay. Returns their ids."""
    return session.scalars(delete(_POINTS).where(_POINTS.c.repository_id == repository_id).returning(_POINTS.c.id)).all()
