"""The short way to rows: one statement, compiled once, run on a thread that keeps its own connection.

A page of the API costs a few dozen microseconds in the database. Sessions, statement building and the pool
cost several times that, so the calls that dashboards repeat all day go this way; everything else uses `Database`.
"""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast

from sqlalchemy import Dialect, Engine, Select
from sqlalchemy.engine.interfaces import DBAPIConnection

from service.errors import DatabaseUnavailable

THREADS = 8
Parameters = Mapping[str, str | int | datetime | None]


class Statement:
    """A select of one value. It is compiled at its first use; its parameters are given by name."""

    def __init__(self, select: Select[tuple[str]]) -> None:
        self._select = select
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None, dict[str, Any]]] = {}

    def for_driver(self, dialect: Dialect, given: Parameters) -> tuple[str, Any]:
        """The text and the parameters as the driver wants them: by position for SQLite, by name for PostgreSQL."""
        if dialect.name not in self._compiled:
            compiled = self._select.compile(dialect=dialect)
            positions = tuple(compiled.positiontup) if compiled.positional and compiled.positiontup is not None else None
            self._compiled[dialect.name] = (str(compiled), positions, dict(compiled.construct_params(check=False)))
        sql, positions, constants = self._compiled[dialect.name]
        if positions is None:
            return sql, constants | dict(given)
        # SQLite keeps times as text; this is the text that SQLAlchemy writes there.
        values = {name: _sqlite_text(value) if isinstance(value, datetime) else value for name, value in given.items()}
        return sql, tuple(values[name] if name in values else constants[name] for name in positions)


class Reader:
    """Runs statements for the event loop, each on one of a few threads. `close` ends the threads and their connections."""

    def __init__(self, engine: Engine, threads: int = THREADS) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._local = threading.local()
        self._open: set[DBAPIConnection] = set()

    async def text(self, statement: Statement, parameters: Parameters) -> str | None:
        """The value of the first row. Raises DatabaseUnavailable when the database is locked or away."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._text, statement, parameters)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        for connection in list(self._open):
            self._discard(connection)

    def _text(self, statement: Statement, parameters: Parameters) -> str | None:
        sql, values = statement.for_driver(self._engine.dialect, parameters)
        kept: DBAPIConnection | None = getattr(self._local, "connection", None)
        try:
            return self._run(kept or self._connect(), sql, values)
        except self._driver_errors as error:
            if kept is None or not self._engine.dialect.is_disconnect(error, kept, None):
                raise DatabaseUnavailable(reason=str(error).strip() or type(error).__name__) from error
        # The kept connection died while it was idle (the database was restarted): a fresh one may work.
        try:
            return self._run(self._connect(), sql, values)
        except self._driver_errors as error:
            raise DatabaseUnavailable(reason=str(error).strip() or type(error).__name__) from error

    def _run(self, connection: DBAPIConnection, sql: str, values: Any) -> str | None:
        cursor = connection.cursor()
        try:
            cursor.execute(sql, values)
            row = cursor.fetchone()
        except self._driver_errors:
            self._discard(connection)
            raise
        finally:
            with suppress(*self._driver_errors):
                cursor.close()
        return cast("str | None", row[0]) if row is not None else None

    def _connect(self) -> DBAPIConnection:
        pooled = self._engine.raw_connection()
        connection = cast("DBAPIConnection", pooled.driver_connection)
        pooled.detach()
        if self._engine.dialect.name == "postgresql":
            # A lone select needs no BEGIN and no ROLLBACK around it. (SQLite's connections are opened like that.)
            cast("Any", connection).autocommit = True
        self._local.connection = connection
        self._open.add(connection)
        return connection

    def _discard(self, connection: DBAPIConnection) -> None:
        self._open.discard(connection)
        if getattr(self._local, "connection", None) is connection:
            self._local.connection = None
        with suppress(*self._driver_errors):
            connection.close()

    @cached_property
    def _driver_errors(self) -> tuple[type[Exception], ...]:
        driver: Any = self._engine.dialect.loaded_dbapi
        return (driver.OperationalError, driver.InterfaceError)


def _sqlite_text(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
