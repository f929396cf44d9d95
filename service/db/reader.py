"""The short way to rows: one statement, compiled once, run on a connection that is kept for such statements.

A page of the API costs a few dozen microseconds in the database. Sessions, statement building and the pool
cost several times that, so the calls that dashboards repeat all day go this way; everything else uses `Database`.

What was made of an answer is kept, and given again while no transaction has been committed since. So a dashboard is answered with
what is true now, and costs the database one look whether anything is new.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, TypeVar, cast

from sqlalchemy import Dialect, Engine, Select
from sqlalchemy.engine.interfaces import DBAPIConnection

from service.db import postgresql
from service.db.postgresql import Row, Value
from service.deadlines import close_in_time
from service.errors import DatabaseUnavailable

CONNECTIONS = 8
QUICK_SECONDS = 0.005
"""Seconds that a statement may keep the event loop. After that it is ended, and a thread runs it again."""
PROGRESS_INSTRUCTIONS = 2_000
"""How often SQLite asks whether the time is up: some 0.1 ms apart."""
KEPT_BYTES = 16 * 2**20
"""Some 160 pages of a list."""
KEPT_OVERHEAD = 1_000
"""Bytes that one kept answer takes on top of its text, about."""
Result = TypeVar("Result")
Made = TypeVar("Made", bound=bytes | None)
Parameters = Mapping[str, Value]


class Statement:
    """A select of one row. It is compiled at its first use; its parameters are given by name."""

    def __init__(self, select: Select[*tuple[Any, ...]]) -> None:
        self._select = select
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None, dict[str, Any]]] = {}

    def for_driver(self, dialect: Dialect, given: Parameters) -> tuple[str, Any]:
        """The text and the parameters as the dialect wants them: by position, or by name."""
        if dialect.paramstyle not in self._compiled:
            compiled = self._select.compile(dialect=dialect)
            constants = {name: parameter.value for name, parameter in compiled.binds.items()}
            positions = tuple(compiled.positiontup) if compiled.positional and compiled.positiontup is not None else None
            self._compiled[dialect.paramstyle] = (str(compiled), positions, constants)
        sql, positions, constants = self._compiled[dialect.paramstyle]
        if positions is None:
            return sql, constants | dict(given)
        values = constants | dict(given)
        if dialect.name == "sqlite":
            # It keeps times as text; this is the text that SQLAlchemy writes there.
            return sql, tuple(_sqlite_text(value) if isinstance(value, datetime) else value for value in map(values.get, positions))
        return sql, tuple(values[name] for name in positions)


class Reader:
    """Runs statements for the event loop. `close` ends its connections."""

    def __init__(self, engine: Engine, connections: int = CONNECTIONS) -> None:
        is_postgresql = engine.dialect.name == "postgresql"
        self._source = postgresql.Connections(engine, connections) if is_postgresql else _Sqlite(engine, connections)
        self._kept = Kept(KEPT_BYTES)

    async def row(self, statement: Statement, parameters: Parameters) -> Row | None:
        """The first row, or None. Raises DatabaseUnavailable when the database is locked or away."""
        return await self._source.row(*statement.for_driver(self._source.dialect, parameters))

    async def made(self, statement: Statement, parameters: Parameters, make: Callable[[Row | None], Made]) -> Made:
        """What `make`, which must make the same of the same row, makes of the first row. None is not kept. Raises DatabaseUnavailable."""
        sql, values = statement.for_driver(self._source.dialect, parameters)
        key = (sql, values)
        # Asked for before the row is read: what is committed between the two is in the row, and is only read once more.
        version = await self._source.version()
        kept = self._kept.get(key, version)
        if kept is not None:
            return cast("Made", kept)
        made = make(await self._source.row(sql, values))
        if made is not None and version is not None:
            self._kept.put(key, version, made)
        return made

    def close(self) -> None:
        """It can be used again afterwards."""
        self._source.close()
        # The versions of another connection of SQLite count from the beginning.
        self._kept = Kept(KEPT_BYTES)


class Kept:
    """Texts, each with the version of the database of which it is true, up to `limit_bytes` of them; the ones put first go first.

    No record of what was used last: it would cost more per look than what is lost is worth, one more read.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._texts: dict[Hashable, tuple[Hashable, bytes]] = {}
        self._bytes = 0
        self._limit_bytes = limit_bytes

    def get(self, key: Hashable, version: Hashable) -> bytes | None:
        of_version, text = self._texts.get(key, (None, None))
        return text if version is not None and of_version == version else None

    def put(self, key: Hashable, version: Hashable, text: bytes) -> None:
        self._remove(key)
        self._texts[key] = (version, text)
        self._bytes += len(text) + KEPT_OVERHEAD
        while self._bytes > self._limit_bytes:
            self._remove(next(iter(self._texts)))

    def _remove(self, key: Hashable) -> None:
        if (removed := self._texts.pop(key, None)) is not None:
            self._bytes -= len(removed[1]) + KEPT_OVERHEAD


class _Sqlite:
    """Tries a statement on the event loop itself: a page takes a fraction of a millisecond, and handing it to a thread
    costs as much again. It gives up after QUICK_SECONDS, or at once where a lock is held, and then a thread does it
    with patience.
    """

    def __init__(self, engine: Engine, threads: int) -> None:
        self.dialect = engine.dialect
        self._engine = engine
        self._thread_count = threads
        self._threads = self._new_threads()
        self._local = threading.local()
        self._open: set[DBAPIConnection] = set()
        self._quick: Any = None
        self._quick_until = 0.0

    async def version(self) -> Hashable | None:
        """Another one after each commit of another connection, and this one only reads. None: it cannot be had at once."""
        with suppress(*self._driver_errors):
            return cast("Hashable", (await self._at_once("PRAGMA data_version", ()))[0])
        return None

    async def row(self, sql: str, values: Sequence[Value]) -> Row | None:
        with suppress(*self._driver_errors):
            return cast("Row | None", await self._at_once(sql, values))
        return await self._in_thread(self._row, sql, values)

    async def _at_once(self, sql: str, values: Sequence[Value]) -> Any:
        """Raises the driver's errors."""
        if self._quick is None:
            self._quick = await self._in_thread(self._connect_quick)
        self._quick_until = time.perf_counter() + QUICK_SECONDS
        return self._quick.execute(sql, values).fetchone()

    def close(self) -> None:
        close_in_time(partial(self._end, self._threads, self._open), call="close the reader")
        self._open = set()
        self._quick = None
        self._local = threading.local()
        self._threads = self._new_threads()

    def _end(self, threads: ThreadPoolExecutor, connections: set[DBAPIConnection]) -> None:
        threads.shutdown(wait=True)
        for connection in list(connections):
            connections.discard(connection)
            with suppress(*self._driver_errors):
                connection.close()

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._thread_count, thread_name_prefix="reader")

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _connect_quick(self) -> Any:
        connection: Any = self._connect()
        connection.execute("PRAGMA busy_timeout=0")
        connection.set_progress_handler(lambda: time.perf_counter() > self._quick_until, PROGRESS_INSTRUCTIONS)
        return connection

    def _row(self, sql: str, values: Sequence[Value]) -> Row | None:
        connection: Any = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        try:
            return cast("Row | None", connection.execute(sql, values).fetchone())
        except self._driver_errors as error:
            self._local.connection = None
            self._discard(connection)
            raise DatabaseUnavailable(reason=_first_line(error)) from error

    def _connect(self) -> DBAPIConnection:
        try:
            pooled = self._engine.raw_connection()
        except self._driver_errors as error:
            raise DatabaseUnavailable(reason=_first_line(error)) from error
        connection = cast("DBAPIConnection", pooled.driver_connection)
        pooled.detach()
        self._open.add(connection)
        return connection

    def _discard(self, connection: DBAPIConnection) -> None:
        self._open.discard(connection)
        with suppress(*self._driver_errors):
            connection.close()

    @cached_property
    def _driver_errors(self) -> tuple[type[Exception], ...]:
        driver: Any = self._engine.dialect.loaded_dbapi
        return (driver.OperationalError, driver.InterfaceError)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _sqlite_text(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
