"""The short way to rows: one statement, compiled once, run on a thread that keeps its own connection.

A page of the API costs a few dozen microseconds in the database. Sessions, statement building and the pool
cost several times that, so the calls that dashboards repeat all day go this way; everything else uses `Database`.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar, cast

from sqlalchemy import Dialect, Engine, Select
from sqlalchemy.engine.interfaces import DBAPIConnection

from service.errors import DatabaseUnavailable

THREADS = 8
QUICK_SECONDS = 0.005
PROGRESS_INSTRUCTIONS = 2_000
"""How often SQLite asks whether the time is up: some 0.1 ms apart."""
Row = tuple[Any, ...]
Result = TypeVar("Result")
Parameters = Mapping[str, str | int | datetime | None]


class Statement:
    """A select of one row. It is compiled at its first use; its parameters are given by name."""

    def __init__(self, select: Select[*tuple[Any, ...]]) -> None:
        self._select = select
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None, dict[str, Any]]] = {}

    def for_driver(self, dialect: Dialect, given: Parameters) -> tuple[str, Any]:
        """The text and the parameters as the driver wants them: by position for SQLite, by name for PostgreSQL."""
        if dialect.name not in self._compiled:
            compiled = self._select.compile(dialect=dialect)
            constants = {name: parameter.value for name, parameter in compiled.binds.items()}
            positions = tuple(compiled.positiontup) if compiled.positional and compiled.positiontup is not None else None
            self._compiled[dialect.name] = (str(compiled), positions, constants)
        sql, positions, constants = self._compiled[dialect.name]
        if positions is None:
            return sql, constants | dict(given)
        # SQLite keeps times as text; this is the text that SQLAlchemy writes there.
        values = {name: _sqlite_text(value) if isinstance(value, datetime) else value for name, value in given.items()}
        return sql, tuple(values[name] if name in values else constants[name] for name in positions)


class Reader:
    """Runs statements for the event loop. `close` ends its threads and connections.

    On SQLite a statement is first tried on the event loop itself: a page takes a fraction of a millisecond, and handing
    it to a thread costs as much again. It gives up after QUICK_SECONDS, or at once where a lock is held, and then a
    thread does it with patience. On PostgreSQL a thread does it always.
    """

    def __init__(self, engine: Engine, threads: int = THREADS) -> None:
        self._engine = engine
        self._is_postgresql = engine.dialect.name == "postgresql"
        self._thread_count = threads
        self._threads = self._new_threads()
        self._local = threading.local()
        self._open: set[DBAPIConnection] = set()
        self._quick: Any = None
        self._quick_until = 0.0

    async def row(self, statement: Statement, parameters: Parameters) -> Row | None:
        """The first row, or None. Raises DatabaseUnavailable when the database is locked or away."""
        sql, values = statement.for_driver(self._engine.dialect, parameters)
        if not self._is_postgresql:
            if self._quick is None:
                self._quick = await self._in_thread(self._connect_quick)
            with suppress(*self._driver_errors):
                self._quick_until = time.perf_counter() + QUICK_SECONDS
                return cast("Row | None", self._quick.execute(sql, values).fetchone())
        return await self._in_thread(self._row, sql, values)

    async def text(self, statement: Statement, parameters: Parameters) -> str | None:
        """The first value of the first row. Raises DatabaseUnavailable."""
        row = await self.row(statement, parameters)
        return row[0] if row is not None else None

    def close(self) -> None:
        """It can be used again afterwards."""
        self._threads.shutdown(wait=True)
        for connection in list(self._open):
            self._discard(connection)
        self._quick = None
        self._threads = self._new_threads()

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._thread_count, thread_name_prefix="reader")

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _connect_quick(self) -> Any:
        connection: Any = self._connect()
        connection.execute("PRAGMA busy_timeout=0")
        connection.set_progress_handler(lambda: time.perf_counter() > self._quick_until, PROGRESS_INSTRUCTIONS)
        return connection

    def _row(self, sql: str, values: Any) -> Row | None:
        kept: DBAPIConnection | None = getattr(self._local, "connection", None)
        try:
            return self._run(kept or self._connect_thread(), sql, values)
        except self._driver_errors as error:
            if kept is None or not self._is_disconnect(error, kept):
                raise DatabaseUnavailable(reason=_first_line(error)) from error
        # The kept connection died while it was idle (the database was restarted): a fresh one may work.
        try:
            return self._run(self._connect_thread(), sql, values)
        except self._driver_errors as error:
            raise DatabaseUnavailable(reason=_first_line(error)) from error

    def _is_disconnect(self, error: Any, connection: DBAPIConnection) -> bool:
        return self._engine.dialect.is_disconnect(error, connection, None)

    def _run(self, connection: DBAPIConnection, sql: str, values: Any) -> Row | None:
        # In PostgreSQL's text format a page would travel as hexadecimal digits.
        cursor = cast("Any", connection).cursor(binary=True) if self._is_postgresql else connection.cursor()
        try:
            cursor.execute(sql, values)
            return cast("Row | None", cursor.fetchone())
        except self._driver_errors:
            self._local.connection = None
            self._discard(connection)
            raise
        finally:
            with suppress(*self._driver_errors):
                cursor.close()

    def _connect_thread(self) -> DBAPIConnection:
        self._local.connection = self._connect()
        return cast("DBAPIConnection", self._local.connection)

    def _connect(self) -> DBAPIConnection:
        try:
            pooled = self._engine.raw_connection()
        except self._driver_errors as error:
            raise DatabaseUnavailable(reason=_first_line(error)) from error
        connection = cast("DBAPIConnection", pooled.driver_connection)
        pooled.detach()
        if self._is_postgresql:
            # A lone select needs no BEGIN and no ROLLBACK around it. (SQLite's connections are opened like that.)
            cast("Any", connection).autocommit = True
        self._open.add(connection)
        return connection

    def _discard(self, connection: DBAPIConnection) -> None:
        self._open.discard(connection)
        with suppress(*self._driver_errors):
            connection.close()

    @cached_property
    def _driver_errors(self) -> tuple[type[Exception], ...]:
        driver = self._driver
        return (driver.OperationalError, driver.InterfaceError)

    @cached_property
    def _driver(self) -> Any:
        return self._engine.dialect.loaded_dbapi


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _sqlite_text(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
