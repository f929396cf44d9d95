"""What a long queue costs those who look for the next job: not more than a short one."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from service.db.engine import Database
from service.db.tables import Job
from service.model.lifecycle import JobState
from service.records import queue
from service.records.locks import domain_key
from tests.scenes.orders import a_snapshot, a_thaw
from tests.scenes.queue import add, allow, claimed

HOST = "hv1"
STEP = 100


@pytest.fixture(autouse=True)
def host_with_slots(database: Database) -> None:
    allow(database, f"host:{HOST}:quick", 4)


def test_a_backlog_of_one_busy_domain_is_stepped_over(database: Database) -> None:
    _backlog(database, "db1", 10_000)
    claimed(database)
    behind = add(database, a_snapshot("web1"))
    with _rows_looked_at(database) as most:
        assert _next_kind(database) == "snapshot"
    assert most() < 100
    assert claimed(database).job_id == behind


def test_a_backlog_of_a_busy_domain_and_nothing_else_is_stepped_over(database: Database) -> None:
    _backlog(database, "db1", 10_000)
    claimed(database)
    with _rows_looked_at(database) as most:
        assert _next_kind(database) is None
    assert most() < 100


def test_a_thaw_is_found_before_a_backlog(database: Database) -> None:
    _backlog(database, "db1", 10_000)
    thaw = add(database, a_thaw("web1"))
    with _rows_looked_at(database) as most:
        assert _next_kind(database) == "thaw"
    assert most() < 100
    assert claimed(database).job_id == thaw


def test_no_queue_is_looked_at_while_all_slots_of_the_host_are_taken(database: Database) -> None:
    for n in range(4):
        add(database, a_snapshot(f"busy{n}"))
        claimed(database)
    add(database, a_snapshot("web1"))
    assert _next_kind(database) is None
    assert _next_kind(database) is None
    thaw = add(database, a_thaw("web1"))
    assert _next_kind(database) == "thaw"
    assert claimed(database).job_id == thaw


def _next_kind(database: Database) -> str | None:
    with database.read() as session:
        return queue.next_kind(session, HOST)


def _backlog(database: Database, domain: str, jobs: int) -> None:
    now = datetime.now(UTC)
    same: dict[str, Any] = {
        "kind": "snapshot",
        "state": JobState.queued.value,
        "domain_id": f"id-of-{domain}",
        "domain_name": domain,
        "host_id": HOST,
        "lock_key": domain_key(f"id-of-{domain}"),
        **dict.fromkeys(("created_at", "run_after", "updated_at"), now),
        "request": {},
        "labels": {},
        "phases": [],
        "verdict_reasons": [],
    }
    with database.write() as session:
        session.execute(insert(Job), [{**same, "id": str(uuid.uuid4())} for _ in range(jobs)])
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT", stillpoint_read_only=True) as connection:
        connection.execute(text("ANALYZE"))


@contextmanager
def _rows_looked_at(database: Database) -> Iterator[Any]:
    """How many rows the worst statement of the block looks at, as far as the database tells: on SQLite by the steps of its machine."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    yield lambda: max(_cost(database, statement, parameters) for statement, parameters in asked)
    event.remove(database.engine, "before_cursor_execute", note)


def _cost(database: Database, statement: str, parameters: Any) -> int:
    if not statement.lstrip().startswith(("SELECT", "WITH")):
        return 0
    event_count = 0
    with database.engine.connect().execution_options(stillpoint_read_only=True) as connection:
        if database.engine.dialect.name == "postgresql":
            plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN (ANALYZE, TIMING OFF) {statement}", parameters))
            removed = [int(rows) for rows in re.findall(r"Rows Removed by \w+(?: Recheck)?: (\d+)", plan)]
            return max([*removed, *(int(rows) for rows in re.findall(r"actual rows=(\d+)", plan))])
        driver: Any = connection.connection.driver_connection

        def count() -> int:
            nonlocal event_count
            event_count += 1
            return 0

        driver.set_progress_handler(count, STEP)
        driver.execute(statement, parameters).fetchall()
        driver.set_progress_handler(None, 0)
    # Some fifty steps a row.
    return event_count * STEP // 50
