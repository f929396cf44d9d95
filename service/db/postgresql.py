"""Asks PostgreSQL from the event loop, without a thread and without a cursor.

A thread that has its answer must first get the interpreter back from a busy event loop, and a cursor takes several times as long as
the database needs for a row. So this module uses libpq, as psycopg wraps it: send, wait until readable, take the result.
"""

import asyncio
import select
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Dialect, Engine

from service.db.engine import CONNECT_TIMEOUT_S
from service.db.postgresql_silence import ANSWER_S, TCP
from service.errors import DatabaseUnavailable

QUICK_SECONDS = 0.0005
"""Seconds. A statement that takes longer than this counts as slow."""
PATIENT_SECONDS = 0.1
"""Seconds for which the event loop does not wait for a slow statement at once."""
MAX_PREPARED = 100
"""Prepared statements of a connection. With more, the connection is closed after use, because the server needs memory for each."""
_VERSION = "SELECT pg_current_snapshot()::text"
"""Which transactions are seen. While this stays the same, everything that can be read stays the same."""
Row = tuple[Any, ...]
Value = str | int | datetime | None


class Connections:
    """At most `limit` connections of one event loop. If all are in use, a statement waits for its turn."""

    def __init__(self, engine: Engine, limit: int) -> None:
        dialect: Any = type(engine.dialect)
        self.dialect: Dialect = dialect(paramstyle="numeric_dollar")
        """The dialect to compile statements with. libpq takes parameters by number."""
        self._engine = engine
        self._driver: Any = engine.dialect.loaded_dbapi
        self._errors: tuple[type[Exception], ...] = (self._driver.OperationalError, self._driver.InterfaceError)
        self._limit = limit
        self._turns = asyncio.Semaphore(limit)
        self._idle: list[_Connection] = []
        #: Counts connections that were made: behind a new one may be a server that took the place of another.
        self._made = 0
        self._gathering: asyncio.Task[Hashable] | None = None
        self._one_asks = asyncio.Lock()

    async def version(self) -> Hashable:
        """Another one after each commit. It is asked for after the call, once for all who wait. Raises DatabaseUnavailable."""
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._ask_version())
        # The others still wait for it when one of them goes away.
        return await asyncio.shield(self._gathering)

    async def _ask_version(self) -> Hashable:
        async with self._one_asks:
            # The question is sent now: it answers nobody who comes later.
            self._gathering = None
            return self._made, await self.row(_VERSION, ())

    async def row(self, sql: str, values: Sequence[Value]) -> Row | None:
        """Raises DatabaseUnavailable."""
        try:
            async with asyncio.timeout(ANSWER_S), self._turns:
                if self._idle:
                    # The connection may have died while it was idle (the database was restarted). A new connection may work.
                    with suppress(*self._errors):
                        return await self._ask(self._idle.pop(), sql, values)
                return await self._ask(await self._connect(), sql, values)
        except TimeoutError as error:
            raise DatabaseUnavailable(reason=f"the server did not answer within {ANSWER_S:g} s") from error
        except self._errors as error:
            raise DatabaseUnavailable(reason=str(error).strip().partition("\n")[0] or type(error).__name__) from error

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        # These belong to the event loop that waited for them, so each event loop gets new ones.
        self._turns, self._one_asks, self._gathering = asyncio.Semaphore(self._limit), asyncio.Lock(), None

    async def _ask(self, connection: "_Connection", sql: str, values: Sequence[Value]) -> Row | None:
        answered = False
        try:
            row = await connection.row(sql, values)
            answered = True
            return row
        finally:
            # If the statement failed or its caller went away, an answer may still come over this connection.
            if answered and connection.prepared <= MAX_PREPARED:
                self._idle.append(connection)
            else:
                connection.close()

    async def _connect(self) -> "_Connection":
        _, parameters = self._engine.dialect.create_connect_args(self._engine.url)
        given = {"connect_timeout": CONNECT_TIMEOUT_S, **TCP, **parameters}
        self._made += 1
        return _Connection(await self._driver.AsyncConnection.connect(**given), self._driver)


class _Connection:
    """Runs one statement at a time. Each is a transaction of its own, because a single select needs no BEGIN and no ROLLBACK."""

    def __init__(self, connection: Any, driver: Any) -> None:
        self._driver = driver
        self._connection = connection
        self._libpq = connection.pgconn
        self._plans: dict[str, _Plan] = {}
        self._readable = select.poll()
        self._readable.register(self._libpq.socket, select.POLLIN)

    @property
    def prepared(self) -> int:
        return len(self._plans)

    def close(self) -> None:
        self._libpq.finish()

    async def row(self, sql: str, values: Sequence[Value]) -> Row | None:
        """Raises the driver's errors."""
        plan = self._plans.get(sql)
        if plan is None:
            plan = _Plan(b"reader_%d" % len(self._plans))
            self._libpq.send_prepare(plan.name, sql.encode())
            await self._result()
            self._plans[sql] = plan
        # Results are binary, because a page as text would be sent as hexadecimal digits.
        self._libpq.send_query_prepared(plan.name, [_as_text(value) for value in values], result_format=1)
        self._look_at_once(plan)
        result = await self._result()
        if not result.ntuples:
            return None
        transformer = self._driver.adapt.Transformer(self._connection)
        transformer.set_pgresult(result)
        return cast("Row", transformer.load_row(0, tuple))

    def _look_at_once(self, plan: "_Plan") -> None:
        """Wait a very short time for the row, which often takes less time than a round of the event loop.

        If the row takes longer, for example because the server is far away, this wait is left out for PATIENT_SECONDS.
        """
        now = time.monotonic()
        if now < plan.slow_until:
            return
        # One millisecond is the shortest wait of poll.
        if self._readable.poll(1):
            self._libpq.consume_input()
        if time.monotonic() - now > QUICK_SECONDS:
            plan.slow_until = now + PATIENT_SECONDS

    async def _result(self) -> Any:
        loop, socket = asyncio.get_running_loop(), self._libpq.socket
        while self._libpq.flush():
            await _until(loop.add_writer, loop.remove_writer, socket)
        last = None
        while True:
            while self._libpq.is_busy():
                await _until(loop.add_reader, loop.remove_reader, socket)
                self._libpq.consume_input()
            result = self._libpq.get_result()
            if result is None:
                return last
            last = self._checked(result)

    def _checked(self, result: Any) -> Any:
        status = self._driver.pq.ExecStatus
        if result.status in (status.TUPLES_OK, status.COMMAND_OK):
            return result
        sqlstate = result.error_field(self._driver.pq.DiagnosticField.SQLSTATE)
        error = self._driver.errors.lookup(sqlstate.decode()) if sqlstate else self._driver.OperationalError
        raise error(result.get_error_message())


@dataclass
class _Plan:
    name: bytes
    #: By the clock of time.monotonic.
    slow_until: float = 0.0


async def _until(add: Callable[..., None], remove: Callable[[int], object], socket: int) -> None:
    ready = asyncio.Event()
    add(socket, ready.set)
    try:
        await ready.wait()
    finally:
        remove(socket)


def _as_text(value: Value) -> bytes | None:
    if value is None:
        return None
    return (value.isoformat() if isinstance(value, datetime) else str(value)).encode()
