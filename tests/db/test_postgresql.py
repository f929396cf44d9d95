"""PostgreSQL asked from the event loop: quick where it can be, and nobody waits for what is slow."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, create_engine

from service.db import postgresql
from service.db.engine import open_engine
from service.db.postgresql import Connections
from service.errors import DatabaseUnavailable

DIVISION_BY_ZERO = "22012"
"""PostgreSQL's SQLSTATE."""

Result = TypeVar("Result")


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = open_engine(postgres_url)
    yield engine
    engine.dispose()


def _with(engine: Engine, limit: int, work: Callable[[Connections], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        connections = Connections(engine, limit)
        try:
            return await work(connections)
        finally:
            connections.close()

    return asyncio.run(run())


def test_values_of_every_kind_come_back_as_they_are(engine: Engine) -> None:
    sql = "SELECT $1::VARCHAR, $2::BIGINT, convert_to($1::VARCHAR, 'UTF8'), NULL, $3::VARCHAR"

    async def ask(connections: Connections) -> Any:
        return await connections.row(sql, ["ü\n", 2**40, None])

    assert _with(engine, 1, ask) == ("ü\n", 2**40, "ü\n".encode(), None, None)


def test_an_answer_larger_than_any_buffer_is_whole(engine: Engine) -> None:
    async def ask(connections: Connections) -> Any:
        return await connections.row("SELECT repeat($1::VARCHAR, 5000000), $2::VARCHAR", ["x", "y" * 5_000_000])

    assert _with(engine, 1, ask) == ("x" * 5_000_000, "y" * 5_000_000)


def test_a_slow_statement_leaves_the_event_loop_to_others(engine: Engine) -> None:
    async def turns_of_the_loop(connections: Connections) -> int:
        await connections.row("SELECT 1", [])
        answer = asyncio.ensure_future(connections.row("SELECT pg_sleep(0.5)", []))
        turns = 0
        while not answer.done():
            await asyncio.sleep(0.001)
            turns += 1
        return turns

    # One or two, if the statement kept the loop.
    assert _with(engine, 1, turns_of_the_loop) > 10


def test_many_at_once_each_get_their_own_answer_from_few_connections(engine: Engine) -> None:
    async def ask(connections: Connections) -> tuple[list[Any], int]:
        rows = await asyncio.gather(*(connections.row("SELECT $1::INT, pg_sleep(0.005)::TEXT, pg_backend_pid()", [n]) for n in range(40)))
        return [row[0] for row in rows if row is not None], len({row[2] for row in rows if row is not None})

    answers, connections = _with(engine, 4, ask)
    assert answers == list(range(40))
    assert connections <= 4


def test_after_a_refused_statement_the_next_one_is_answered(engine: Engine) -> None:
    async def ask(connections: Connections) -> tuple[str, Any]:
        error: Any = engine.dialect.loaded_dbapi
        with pytest.raises(error.DataError) as refused:
            await connections.row("SELECT 1 / $1::INT", [0])
        return refused.value.sqlstate, await connections.row("SELECT 1 / $1::INT", [1])

    assert _with(engine, 1, ask) == (DIVISION_BY_ZERO, (1,))


def test_a_caller_that_goes_away_leaves_no_answer_for_the_next_one(engine: Engine) -> None:
    async def ask(connections: Connections) -> Any:
        first = asyncio.ensure_future(connections.row("SELECT 'first', pg_sleep(0.2)::TEXT", []))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return await connections.row("SELECT 'second'", [])

    assert _with(engine, 1, ask) == ("second",)


def test_a_connection_keeps_few_statements_planned(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "MAX_PREPARED", 5)

    async def ask(connections: Connections) -> list[Any]:
        for n in range(20):
            await connections.row(f"SELECT {n}", [])
        row = await connections.row("SELECT count(*) FROM pg_prepared_statements", [])
        return list(row or ())

    assert _with(engine, 1, ask)[0] <= 6


def test_a_database_that_is_not_there_is_unavailable(postgres_url: str) -> None:
    engine = create_engine(postgres_url.replace("/stillpoint_test_", "/no_such_"))

    async def ask(connections: Connections) -> Any:
        return await connections.row("SELECT 1", [])

    with pytest.raises(DatabaseUnavailable, match="database"):
        _with(engine, 1, ask)
