"""The events: one for each move of a job or of a recovery point, in the transaction of the move. Rows are added, and never changed.

A reader remembers the id of the last event that it has seen, and asks for later events. Transactions of PostgreSQL may commit in another
order than the order of their ids, so the reader stops before the first id that may still appear (docs/decisions/0023).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Insert, Update, column, insert, literal, select, text, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.db.base import table_of
from service.db.tables import Event


class EventKind(StrEnum):
    job = "job"
    recovery_point = "recovery_point"


Subject = dict[InstrumentedAttribute[Any], ColumnElement[Any] | InstrumentedAttribute[Any]]
"""Columns of an event, and the columns of the moved row that hold their values."""


@dataclass(frozen=True)
class Move:
    """`source` None: the moved row did not exist before. `at`: by the clock of the database."""

    kind: EventKind
    source: StrEnum | None
    to: StrEnum
    at: datetime
    facts: dict[str, Any] = field(default_factory=dict)


def carry_out(session: Session, change: Insert | Update, move: Move, subject: Subject) -> Sequence[Any]:
    """Make the change, and add an event for each changed row.

    Returns the rows as they are now. Beside their columns they have the subjects, named like the columns of an event.
    """
    names = [name.key for name in subject]
    columns = [column for column in change.table.columns if column.key not in names]
    returning = change.returning(*columns, *(value.label(name.key) for name, value in subject.items()))
    if session.get_bind().dialect.name == "postgresql":
        return session.execute(_with_events(returning, move, names)).all()
    rows = session.execute(returning).all()
    if rows:
        same = _same_in_all(move)
        session.execute(insert(_EVENTS), [{**same, **{name: getattr(row, name) for name in names}} for row in rows])
    return rows


def after(session: Session, cursor: int, limit: int) -> list[Event]:
    """The events after the event with the id `cursor`, oldest first. 0: from the beginning.

    No event with a smaller id than the last event in the answer is ever added later.
    """
    events = select(Event).where(Event.id > cursor).order_by(Event.id).limit(limit)
    if session.get_bind().dialect.name == "postgresql":
        # Three statements in this order, because each must see the state after the statement before.
        newest = session.scalar(_NEWEST) or 0
        floor = session.scalar(_LOWEST_FLOOR)
        events = events.where(Event.id <= (newest if floor is None else min(newest, floor)))
    return list(session.scalars(events))


def _same_in_all(move: Move) -> dict[str, Any]:
    source = move.source.value if move.source is not None else None
    return {"at": move.at, "kind": move.kind.value, "moved_from": source, "moved_to": move.to.value, "facts": move.facts}


# --- PostgreSQL -----------------------------------------------------------------------------------

LOCKS = 0x571779 << 40
"""The first key of the advisory locks of events. The key of a transaction's lock is this number plus the floor of the transaction."""
FLOORS = 1 << 40
"""The number of keys that belong to events."""

_EVENTS = table_of(Event)
_TAKEN = "last_value - (NOT is_called)::int"
"""The number of ids that are taken. Before the first id is taken, `last_value` is 1 and `is_called` is false."""
_NEWEST = text(f"SELECT {_TAKEN} FROM events_id_seq")  # noqa: S608 - a constant, as below
_FLOOR = (
    text(f"SELECT pg_advisory_xact_lock_shared({LOCKS} + {_TAKEN}) FROM events_id_seq")  # noqa: S608
    .columns(column("lock"))
    .cte("floor")
    .prefix_with("MATERIALIZED")
)
_LOWEST_FLOOR = text(
    f"SELECT min((classid::bigint << 32 | objid::bigint) - {LOCKS}) FROM pg_locks"  # noqa: S608
    f" WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint BETWEEN {LOCKS >> 32} AND {(LOCKS + FLOORS - 1) >> 32}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def _with_events(change: Any, move: Move, names: list[str]) -> Any:
    """One statement, to save a round trip to the server.

    Until the end of the transaction its lock says "the ids that this transaction takes are greater than this floor". All these locks are
    shared, so no writer waits for another.
    """
    moved = change.cte("moved")
    same = {name: literal(value, _EVENTS.c[name].type) for name, value in _same_in_all(move).items()}
    # The sequence gives an id only when a row of the join exists, which is after the lock was taken.
    rows = select(*same.values(), *(moved.c[name] for name in names)).select_from(moved.join(_FLOOR, true()))
    added = insert(_EVENTS).from_select([*same, *names], rows).cte("added")
    return select(moved).add_cte(added)
