"""The texts that the API passes on, beside the rows that they tell of: written in the transaction that changes the row."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, Update, bindparam, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.tables import Job, JobDocument, RecoveryPoint
from service.model.documents import text_of_job, texts_of_job, texts_of_point

BATCH = 500
"""Rows that are in memory at once after a migration."""
_JOBS, _TEXTS, _POINTS = table_of(Job), table_of(JobDocument), table_of(RecoveryPoint)
_INSERT: dict[str, Callable[[Table], Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def change_jobs(session: Session, change: Update) -> Sequence[Row[Any]]:
    """Make a change that leaves the state of the jobs as it is, and write their texts. Returns the rows as they are now."""
    rows = session.execute(change.returning(*_JOBS.columns)).all()
    write_jobs(session.connection(), rows)
    return rows


def write_jobs(connection: Connection, rows: Sequence[Any]) -> list[str]:
    """`rows` have the columns of the jobs, as they are after the change. Returns the whole documents."""
    texts = [{"job_id": row.id, **texts_of_job(row)} for row in rows]
    if texts:
        added = _INSERT[connection.dialect.name](_TEXTS)
        written = added.on_conflict_do_update(index_elements=["job_id"], set_={name: added.excluded[name] for name in ("entry", "details")})
        # A list, even of one, would be sent on a longer way.
        connection.execute(written, texts if len(texts) > 1 else texts[0])
    return [text_of_job(text["entry"], text["details"]) for text in texts]


def write_missing(connection: Connection) -> None:
    """After a migration. A migration that changes the shape of a document removes the texts of these rows first."""
    _in_batches(connection, _JOBS, ~exists().where(_TEXTS.c.job_id == _JOBS.c.id), write_jobs)
    _in_batches(connection, _POINTS, _POINTS.c.document.is_(None), write_points)


def _in_batches(connection: Connection, table: Table, missing: Any, write: Callable[[Connection, Sequence[Any]], object]) -> None:
    last = ""
    next_rows = select(table).where(table.c.id > bindparam("last"), missing).order_by(table.c.id).limit(BATCH)
    while rows := connection.execute(next_rows, {"last": last}).all():
        write(connection, rows)
        last = rows[-1].id


def write_points(connection: Connection, rows: Sequence[Any]) -> None:
    """`rows` have the columns of the points, as they are after the change."""
    if not rows:
        return
    written = update(_POINTS).where(_POINTS.c.id == bindparam("of_row")).values(document=bindparam("text"))
    connection.execute(written, [{"of_row": row.id, "text": texts_of_point(row)["document"]} for row in rows])
