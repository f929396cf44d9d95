"""A reader of events misses nothing where writers end in another order than they began. On PostgreSQL: SQLite has one writer at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from service.db.engine import Database, open_engine
from service.db.tables import Event
from service.records import events, queue
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import add


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    opened = Database(open_engine(postgres_url))
    yield opened
    opened.dispose()


def read(database: Database) -> list[Event]:
    with database.read() as session:
        return events.after(session, 0, 1000)


@contextmanager
def a_transaction(database: Database) -> Iterator[Session]:
    """Rolled back, if the test does not commit it."""
    with Session(database.engine) as session:
        yield session


def test_a_reader_waits_for_a_smaller_id_that_may_still_come(database: Database) -> None:
    with a_transaction(database) as slow:
        first = queue.enqueue(slow, a_snapshot("a")).job_id
        second = add(database, a_snapshot("b"))
        assert read(database) == []
        slow.commit()
    assert [event.job_id for event in read(database)] == [first, second]


def test_a_reader_does_not_wait_for_a_writer_that_comes_later(database: Database) -> None:
    first = add(database, a_snapshot("a"))
    with a_transaction(database) as later:
        queue.enqueue(later, a_snapshot("b"))
        assert [event.job_id for event in read(database)] == [first]


def test_a_reader_does_not_wait_for_transactions_that_write_no_events(database: Database) -> None:
    with a_transaction(database) as other:
        other.execute(text("CREATE TABLE of_somebody_else (id int)"))
        first = add(database, a_snapshot("a"))
        assert [event.job_id for event in read(database)] == [first]


def test_an_id_that_was_taken_back_stops_no_reader(database: Database) -> None:
    with a_transaction(database) as slow:
        queue.enqueue(slow, a_snapshot("a"))
        second = add(database, a_snapshot("b"))
        slow.rollback()
    assert [event.job_id for event in read(database)] == [second]


def test_a_savepoint_that_was_taken_back_does_not_uncover_what_the_transaction_writes_later(database: Database) -> None:
    with a_transaction(database) as slow:
        with slow.begin_nested() as savepoint:
            queue.enqueue(slow, a_snapshot("a"))
            savepoint.rollback()
        first = queue.enqueue(slow, a_snapshot("b")).job_id
        second = add(database, a_snapshot("c"))
        assert read(database) == []
        slow.commit()
    assert [event.job_id for event in read(database)] == [first, second]


def test_a_database_with_another_isolation_by_default_misses_nothing_either(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(f'ALTER DATABASE "{database.engine.url.database}" SET default_transaction_isolation = "repeatable read"'))
    database.dispose()
    with database.read() as session:
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"
