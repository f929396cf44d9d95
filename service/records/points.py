"""The rows of recovery points, and the only place that changes their `state`. Callers commit."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Insert, Update, insert
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.tables import Event, RecoveryPoint
from service.model.documents import texts_of_point
from service.model.lifecycle import PointState, point_may_move
from service.records import events
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
    """A point that was taken. `now`: by the clock of the database, because the points of all hosts stand in one list."""
    point.created_at = now
    values = {column.key: getattr(point, column.key) for column in _POINTS.columns if column.key != "state"}
    values |= texts_of_point(point)
    move(session, insert(_POINTS).values(values), None, PointState.taken, now=now, facts={"verdict": point.verdict})


def move(
    session: Session, change: Insert | Update, source: PointState | None, to: PointState, *, now: datetime, facts: dict[str, Any]
) -> Sequence[Any]:
    """Make the change, with which points go from `source` to `to`, and record its events. Returns the subjects of the events.

    An insert comes from None. An update reaches only points that are in `source`.
    Raises ValueError for a move that the table of moves does not have.
    """
    if not point_may_move(source, to) or isinstance(change, Insert) is not (source is None):
        raise ValueError(f"a recovery point cannot go from {source} to {to}")
    if isinstance(change, Update) and source is not None:
        change = change.where(RecoveryPoint.state == source)
    return events.carry_out(session, change.values(state=to.value), Move(EventKind.recovery_point, source, to, now, facts), _SUBJECT)
