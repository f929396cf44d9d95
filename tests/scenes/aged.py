"""Rows of long ago, for what removes them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from service.db.engine import Database
from service.db.tables import Gate, GuestMemory, Job, RawText
from tests.api.world import add_job

RAW = {"writers_after": {"raw_text": 'Writer name: "System Writer"\nState: [1] Stable', "encoding": "ascii"}}


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def add_ended(session: Session, days: float, **columns: Any) -> str:
    """A job that ended so many days ago, on the day on which it was created."""
    ended: dict[str, Any] = {"finished_at": ago(days), "domain_name": "db1"}
    return add_job(session, ago(days) - timedelta(minutes=1), **(ended | columns))


def add_texts(session: Session, job_id: str, days: float) -> None:
    session.add(RawText(job_id=job_id, name="windows", attempt=1, created_at=ago(days), document=RAW))
    session.flush()


def add_gate(session: Session, job_id: str) -> None:
    session.add(Gate(job_id=job_id, state="closed", token_digest="0" * 64, hold_budget_ms=8000))
    session.flush()


def add_memory(session: Session, days: float, domain_id: str | None = None) -> str:
    memory = GuestMemory(domain_id=domain_id or str(uuid4()), updated_at=ago(days), facts={})
    session.add(memory)
    session.flush()
    return memory.domain_id


def job_ids(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Job.id)))


def rows_of(database: Database, table: Any) -> list[tuple[Any, ...]]:
    """Every column of every row."""
    plain: Table = table.__table__
    with database.read() as session:
        return sorted((tuple(row) for row in session.execute(select(plain))), key=str)


def count_of(database: Database, table: Any) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0
