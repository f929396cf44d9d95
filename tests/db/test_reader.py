"""The short way to rows: fresh, patient where it must be, and not fooled by a connection that died."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Sequence

import pytest
from sqlalchemy import bindparam, create_engine, event, func, literal, select, text, update

from service import deadlines
from service.db import engine as engine_module
from service.db import tokens
from service.db.engine import Database, open_engine
from service.db.postgresql import Connections, Row, Value
from service.db.reader import KEPT_OVERHEAD, Kept, Reader, Statement
from service.db.tables import Token
from service.errors import DatabaseUnavailable

NEWEST_NAME = Statement(select(Token.name).order_by(Token.created_at.desc()).limit(1))
NAMES = Statement(select(Token.name).where(Token.id == bindparam("id")))


def test_a_parameter_is_given_by_name_on_both_databases(database: Database) -> None:
    greeting = Statement(select(literal("hello ").concat(bindparam("who", type_=Token.name.type))))
    assert _once(database, greeting, who="you") == "hello you"


def test_what_is_not_there_is_none(database: Database) -> None:
    assert _once(database, NAMES, id="nobody") is None


def test_a_connection_that_died_while_it_was_idle_is_replaced(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    one = Statement(select(literal("here")))

    async def twice() -> list[object]:
        reader = Reader(engine, connections=1)
        first = await reader.row(one, {})
        admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
            connection.execute(text(others))
        admin.dispose()
        second = await reader.row(one, {})
        reader.close()
        return [row and row[0] for row in (first, second)]

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
            return str(await reader.row(NAMES, {"id": "x"}))
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
    kept = _kept_of_two()
    for n in range(4):
        kept.put(n, 1, b"four")
    assert [kept.get(n, 1) for n in range(4)] == [None, None, b"four", b"four"]


def test_what_is_put_again_counts_once() -> None:
    kept = _kept_of_two()
    for version in range(5):
        kept.put("same", version, b"four")
    kept.put("other", 1, b"four")
    assert (kept.get("same", 4), kept.get("same", 3), kept.get("other", 1)) == (b"four", None, b"four")


def test_what_is_larger_than_the_bound_is_not_kept() -> None:
    kept = _kept_of_two()
    kept.put("key", 1, b"x" * 2 * (KEPT_OVERHEAD + 5))
    kept.put("next", 1, b"four")
    assert (kept.get("key", 1), kept.get("next", 1)) == (None, b"four")


def _kept_of_two() -> Kept:
    return Kept(limit_bytes=2 * (KEPT_OVERHEAD + 5))


def test_an_answer_is_made_again_only_after_a_commit(database: Database) -> None:
    read: list[Row | None] = []

    def make(row: Row | None) -> bytes:
        read.append(row)
        return str(row).encode()

    async def ask() -> list[tuple[bytes, int]]:
        reader = Reader(database.engine)
        seen = []
        for write in (None, _add_token, _add_token_and_change_the_mind, None, _rename_tokens):
            if write is not None:
                write(database)
            seen.append((await reader.made(NEWEST_NAME, {}, make), len(read)))
        reader.close()
        return seen

    answers = asyncio.run(ask())
    names = [answer for answer, _count in answers]
    assert names == [b"None", b"('first',)", b"('first',)", b"('first',)", b"('renamed',)"]
    assert answers[3][1] == answers[2][1] < answers[4][1], "nothing was committed, so nothing was read"


@pytest.mark.parametrize("inside", [False, True], ids=["before the read", "during the read"])
def test_a_commit_beside_a_read_is_seen_by_the_next_one(database: Database, inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the version and the look at the row, or while the answer is made of the row."""

    async def ask() -> list[bytes]:
        reader = Reader(database.engine)
        source = reader._source
        version = source.version
        happened: list[bool] = []

        async def version_and_commit() -> object:
            seen = await version()
            if not happened and not inside:
                happened.append(True)
                _add_token(database)
            return seen

        def make(row: Row | None) -> bytes:
            if not happened and inside:
                happened.append(True)
                _add_token(database)
            return str(row).encode()

        monkeypatch.setattr(source, "version", version_and_commit)
        answers = [await reader.made(NEWEST_NAME, {}, make) for _ in range(3)]
        reader.close()
        return answers

    assert asyncio.run(ask())[1:] == [b"('first',)"] * 2


def test_callers_who_wait_for_postgresql_together_ask_once_and_only_those(postgres_url: str) -> None:
    engine = open_engine(postgres_url)

    async def ask() -> list[int]:
        connections = Connections(engine, limit=4)
        asked: list[str] = []
        row = connections.row

        async def counted(sql: str, values: Sequence[Value]) -> Row | None:
            asked.append(sql)
            return await row(sql, values)

        connections.row = counted  # type: ignore[method-assign]
        counts = []
        for callers in (1, 5, 5):
            await asyncio.gather(*(connections.version() for _ in range(callers)))
            counts.append(len(asked))
        connections.close()
        return counts

    assert asyncio.run(ask()) == [1, 2, 3]
    engine.dispose()


def _add_token(database: Database) -> None:
    with database.write() as session:
        tokens.create(session, "first")


def _add_token_and_change_the_mind(database: Database) -> None:
    with database.write() as session:
        tokens.create(session, "second")
        session.flush()
        session.rollback()


def _rename_tokens(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Token).values(name="renamed"))


def _once(database: Database, statement: Statement, **parameters: str) -> str | None:
    async def ask() -> str | None:
        reader = Reader(database.engine)
        try:
            row = await reader.row(statement, parameters)
            return row[0] if row is not None else None
        finally:
            reader.close()

    return asyncio.run(ask())
