"""A PostgreSQL that stands still is noticed within bounds, and a pool without a free connection is a database that is away."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.db import postgresql, postgresql_limits, postgresql_trips
from service.db.engine import Database, open_engine
from service.db.postgresql_limits import ServerSilent
from service.db.schema import alone
from service.errors import DatabaseUnavailable
from tests.postgresql_relay import PostgresqlRelay

LIMIT_S = 1.0


@pytest.fixture
def relay(postgres_url: str, tmp_path: Path) -> Iterator[PostgresqlRelay]:
    with PostgresqlRelay(postgres_url, tmp_path) as relay:
        yield relay


@pytest.fixture
def database(relay: PostgresqlRelay, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(postgresql_limits.BoundedConnection, "answer_s", LIMIT_S)
    opened = Database(open_engine(relay.url))
    yield opened
    opened.dispose()


def cause_of(error: DatabaseUnavailable) -> BaseException | None:
    """The error of the driver."""
    assert isinstance(error.__cause__, DBAPIError)
    return error.__cause__.orig


def one(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(text("SELECT 1")).scalar_one())


def test_a_server_that_stands_still_is_away_and_the_next_one_works(database: Database, relay: PostgresqlRelay) -> None:
    assert one(database) == 1
    relay.mute_open_ones()
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as away, database.write() as session:
        session.execute(text("SELECT 1"))
        # On a machine that is busy it was asked before, and replaced.
        relay.mute_open_ones()
        session.execute(text("SELECT 1"))
    assert isinstance(cause_of(away.value), ServerSilent)
    assert time.monotonic() - started < 30 * LIMIT_S
    assert one(database) == 1


def test_a_server_process_that_was_stopped_is_noticed(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel goes on acknowledging what it is sent, so no keepalive would tell."""
    monkeypatch.setattr(postgresql_limits.BoundedConnection, "answer_s", LIMIT_S)
    database = Database(open_engine(postgres_url))
    with ExitStack() as stack:
        started = 0.0
        with pytest.raises(DatabaseUnavailable) as away, database.read() as session:
            pid = int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())
            stack.callback(os.kill, pid, signal.SIGCONT)
            os.kill(pid, signal.SIGSTOP)
            started = time.monotonic()
            session.execute(text("SELECT 1"))
        assert isinstance(cause_of(away.value), ServerSilent)
        assert time.monotonic() - started < 30 * LIMIT_S
        assert one(database) == 1
    database.dispose()


def test_a_statement_that_takes_too_long_is_ended_by_the_server(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_limits, "_LIMITS", "SET statement_timeout = '100ms'")
    database = Database(open_engine(postgres_url))
    with pytest.raises(DatabaseUnavailable) as ended, database.read() as session:
        session.execute(text("SELECT pg_sleep(30)"))
    assert isinstance(cause_of(ended.value), psycopg.errors.QueryCanceled)
    with alone(database.engine) as connection:
        # A migration may take its time.
        connection.execute(text("SELECT pg_sleep(0.3)"))
    database.dispose()


def test_limits_and_keepalives_are_set(postgres_url: str) -> None:
    database = Database(open_engine(postgres_url))
    with database.read() as session:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        assert [session.execute(text(f"SHOW {name}")).scalar_one() for name in names] == ["15s", "10s", "1min"]
        driver = session.connection().connection.dbapi_connection
        assert isinstance(driver, postgresql_limits.BoundedConnection)
        told = {option.keyword.decode(): (option.val or b"").decode() for option in driver.pgconn.info}
    assert (told["keepalives"], told["tcp_user_timeout"], told["connect_timeout"]) == ("1", "15000", "5")
    database.dispose()


def test_the_reader_of_the_event_loop_notices_it_too(relay: PostgresqlRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_S", LIMIT_S)
    engine = open_engine(relay.url)

    async def ask() -> None:
        connections = postgresql.Connections(engine, 2)
        assert await connections.row("SELECT 1", []) == (1,)
        relay.mute_open_ones()
        with pytest.raises(DatabaseUnavailable):
            await connections.row("SELECT 1", [])
        assert await connections.row("SELECT 1", []) == (1,)
        connections.close()

    asyncio.run(ask())
    engine.dispose()


def test_a_pool_without_a_free_connection_is_a_database_that_is_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.1)
    monkeypatch.setattr(database.engine.pool, "_max_overflow", 0)
    held = [database.engine.connect() for _ in range(10)]
    with pytest.raises(DatabaseUnavailable) as away:
        one(database)
    assert isinstance(away.value.__cause__, PoolTimeoutError)
    for connection in held:
        connection.close()
    assert one(database) == 1


def test_a_connection_that_the_server_ended_while_it_rested_is_replaced(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The socket alone tells: nobody asks whether it lives.
    monkeypatch.setattr(postgresql_trips, "TRUSTED_S", 600.0)
    database, other = Database(open_engine(postgres_url)), create_engine(postgres_url)
    assert one(database) == 1
    ended = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with other.connect() as connection:
        assert connection.scalars(ended).all() == [True]
    assert one(database) == 1
    database.dispose()
    other.dispose()


def test_a_connection_that_fell_silent_while_it_rested_is_replaced(
    database: Database, relay: PostgresqlRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_trips, "TRUSTED_S", 0.0)
    assert one(database) == 1
    relay.mute_open_ones()
    assert one(database) == 1


def test_a_transaction_sees_what_was_committed_while_it_waited_whatever_the_database_does_by_default(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_isolation = "repeatable read"'))
    engine.dispose()
    database = Database(open_engine(postgres_url))
    with database.write() as session:
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"
    database.dispose()
