"""The short way to rows: fresh, patient where it must be, and not fooled by a connection that died."""

import asyncio
import sqlite3
import threading
import time

import pytest
from sqlalchemy import bindparam, create_engine, event, func, literal, select, text

from service import deadlines
from service.db import engine as engine_module
from service.db.engine import Database, open_engine
from service.db.reader import Kept, Reader, Statement
from service.db.tables import Token
from service.errors import DatabaseUnavailable

NAMES = Statement(select(Token.name).where(Token.id == bindparam("id")))


def test_a_parameter_is_given_by_name_on_both_databases(database: Database) -> None:
    greeting = Statement(select(literal("hello ").concat(bindparam("who", type_=Token.name.type))))
    assert _once(database, greeting, who="you") == "hello you"


def test_what_is_not_there_is_none(database: Database) -> None:
    assert _once(database, NAMES, id="nobody") is None


def test_a_connection_that_died_while_it_was_idle_is_replaced(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    one = Statement(select(literal("here")))

    async def twice() -> list[str | None]:
        reader = Reader(engine, connections=1)
        first = await reader.text(one, {})
        admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
            connection.execute(text(others))
        admin.dispose()
        second = await reader.text(one, {})
        reader.close()
        return [first, second]

    assert asyncio.run(twice()) == ["here", "here"]
    engine.dispose()


def test_a_slow_statement_leaves_the_event_loop_to_others(sqlite_database: Database) -> None:
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < 3_000_000))
    slow = Statement(select(func.count()).select_from(numbers))

    async def longest_pause() -> tuple[object, float, float]:
        reader = Reader(sqlite_database.engine)
        await reader.row(Statement(select(literal(1))), {})
        started = time.perf_counter()
        answer = asyncio.ensure_future(reader.row(slow, {}))
        pauses = []
        while not answer.done():
            before = time.perf_counter()
            await asyncio.sleep(0)
            pauses.append(time.perf_counter() - before)
        took = time.perf_counter() - started
        reader.close()
        return answer.result(), max(pauses), took

    row, pause, took = asyncio.run(longest_pause())
    assert row == (3_000_000,)
    assert pause < took / 3


def test_a_locked_database_is_waited_for_on_a_thread_and_then_unavailable(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "SQLITE_BUSY_TIMEOUT_MS", 300)
    path = sqlite_database.engine.url.database
    assert path is not None
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            locked.set()
            release.wait(10)
        other.close()

    async def ask(reader: Reader) -> str:
        try:
            return str(await reader.text(NAMES, {"id": "x"}))
        except DatabaseUnavailable as error:
            return str(error.facts["reason"])

    engine = open_engine(f"sqlite:///{path}")
    reader = Reader(engine)
    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(10)
    during = asyncio.run(ask(reader))
    release.set()
    holder.join()
    after = asyncio.run(ask(reader))
    reader.close()
    engine.dispose()

    assert (during, after) == ("database is locked", "None")


def test_a_connection_that_hangs_does_not_keep_the_reader_from_being_closed(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "CLOSE_S", 0.1)
    hangs, released = threading.Event(), threading.Event()

    @event.listens_for(sqlite_database.engine, "connect")
    def _hang(*_given: object) -> None:
        hangs.set()
        released.wait(60)

    async def ask_and_close() -> bool:
        reader = Reader(sqlite_database.engine)
        answer = asyncio.ensure_future(reader.row(NAMES, {"id": "x"}))
        await asyncio.to_thread(hangs.wait, 60)
        reader.close()
        return answer.done()

    assert asyncio.run(ask_and_close()) is False
    released.set()


def test_what_is_kept_stays_within_its_bound_and_the_oldest_goes_first() -> None:
    kept = Kept(limit_bytes=10)
    for n in range(4):
        kept.put(b"%d" % n, b"four")
    assert [kept.get(b"%d" % n) for n in range(4)] == [None, None, b"four", b"four"]


def test_what_is_put_again_counts_once() -> None:
    kept = Kept(limit_bytes=10)
    for _ in range(5):
        kept.put(b"same", b"four")
    kept.put(b"other", b"four")
    assert (kept.get(b"same"), kept.get(b"other")) == (b"four", b"four")


def test_what_is_larger_than_the_bound_is_not_kept() -> None:
    kept = Kept(limit_bytes=10)
    kept.put(b"key", b"x" * 11)
    kept.put(b"next", b"four")
    assert (kept.get(b"key"), kept.get(b"next")) == (None, b"four")


def _once(database: Database, statement: Statement, **parameters: str) -> str | None:
    async def ask() -> str | None:
        reader = Reader(database.engine)
        try:
            return await reader.text(statement, parameters)
        finally:
            reader.close()

    return asyncio.run(ask())
