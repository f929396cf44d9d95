"""One engine for SQLite and PostgreSQL. Everything that differs between the two is in this module."""

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from sqlalchemy import URL, Engine, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from service.db.bells import Bells
from service.db.database_file import DatabaseFile
from service.db.turns import Turns, WriteTurnMissed
from service.errors import DatabaseReplaced, DatabaseUnavailable, SettingInvalid

SQLITE_BUSY_TIMEOUT_MS = 5_000
"""Milliseconds that a statement waits for SQLite's lock. After that the database counts as unavailable."""
SQLITE_BUSY_PAUSE_S = 0.005
"""Seconds between two tries to switch a new database to WAL."""
CONNECT_TIMEOUT_S = 5
"""Seconds for a new connection to PostgreSQL. After that the database counts as unavailable."""
POOL_PATIENCE_S = 10.0
"""Seconds that a thread waits for a free connection. After that the database counts as unavailable."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
WRITE_PATIENCE_S = 10.0
"""Seconds that a write waits for other writes of its process. After that the database counts as unavailable."""


def open_engine(url: str | URL) -> Engine:
    """An engine for `sqlite:///…` or `postgresql+psycopg://…`. No connection is made yet."""
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(url)
    if backend == "postgresql":
        return _open_postgresql(url)
    raise SettingInvalid(setting="STILLPOINT_DATABASE_URL", reason=f"{backend} is not supported; use sqlite or postgresql+psycopg")


def _open_postgresql(url: str | URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=10,
        max_overflow=20,
        pool_timeout=POOL_PATIENCE_S,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        # Each statement sees what was committed before it. The queue and the events need this, whatever the default of the database is.
        isolation_level="READ COMMITTED",
    )
    # Imported here, because the driver is not installed everywhere.
    from service.db import postgresql_limits, postgresql_trips

    event.listen(engine, "do_connect", postgresql_limits.connect)
    postgresql_trips.save_round_trips(engine)
    event.listen(engine, "connect", postgresql_limits.set_limits)
    return engine


def _open_sqlite(url: str | URL) -> Engine:
    file = _file_of(make_url(url))
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False, "timeout": SQLITE_BUSY_TIMEOUT_MS / 1000},
        execution_options={"stillpoint_file": file},
        pool_size=10,
        max_overflow=20,
        pool_timeout=POOL_PATIENCE_S,
    )

    @event.listens_for(engine, "do_connect")
    def _look_at_the_file(*_ignored: Any) -> None:
        if file is not None:
            file.before_connecting()

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        # None: the driver must not open transactions by itself; "begin" below does, so that a
        # transaction that will write takes the lock at once instead of failing half-way.
        connection.isolation_level = None
        _switch_to_wal(connection)
        # FULL: with NORMAL, WAL may lose the last commits at a power failure, and with them a recovery point whose overlays are in use.
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        if file is not None:
            file.connected()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("stillpoint_read_only", False)
        if file is not None and not read_only:
            file.check_unchanged()
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _file_of(url: URL) -> DatabaseFile | None:
    """None: the database is in memory, or has a name in SQLite's own form (`file:…`)."""
    name = url.database or ""
    return None if name in ("", ":memory:") or name.startswith("file:") else DatabaseFile(Path(name).absolute())


def _switch_to_wal(connection: Any) -> None:
    """Switch to WAL, and try again: if two connections switch a new file together, SQLite answers "locked" at once, without a timeout."""
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(SQLITE_BUSY_PAUSE_S)


class Database:
    """Sessions on one engine. `read` never takes a write lock. `write` commits at the end of the block."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.file: DatabaseFile | None = engine.get_execution_options().get("stillpoint_file")
        self._refused: DatabaseReplaced | None = None
        self._write = sessionmaker(engine, expire_on_commit=False)
        self._read = sessionmaker(engine.execution_options(stillpoint_read_only=True), expire_on_commit=False)
        self.bells = Bells()
        # PostgreSQL accepts many writers at the same time.
        self._turns = Turns() if engine.dialect.name == "sqlite" else None

    @contextmanager
    def write(self, *, urgent: bool = False) -> Iterator[Session]:
        """A transaction that may write. `urgent`: it goes before other writes of this process, because a guest waits for it.

        Raises DatabaseUnavailable if the database is locked or away.
        """
        if self._refused is not None:
            raise DatabaseReplaced(**self._refused.facts)
        with translated_errors(), self._turn(urgent), self._write.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads. Raises DatabaseUnavailable if the database is locked or away."""
        with translated_errors(), self._read() as session:
            yield session

    def refuse_writes(self, reason: DatabaseReplaced) -> NoReturn:
        """Refuse all further writes of this process. Raises `reason`."""
        self._refused = reason
        raise reason

    def dispose(self) -> None:
        self.engine.dispose()

    def _turn(self, urgent: bool) -> AbstractContextManager[None]:
        return self._turns.turn(urgent=urgent, patience_s=WRITE_PATIENCE_S) if self._turns is not None else nullcontext()


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate the errors of a database that is locked, full, read-only or away. A programming error is not translated."""
    try:
        yield
    except WriteTurnMissed as error:
        raise DatabaseUnavailable(reason=f"other writes of this process did not end within {error}") from error
    except PoolTimeoutError as error:
        raise DatabaseUnavailable(reason=f"no connection was free within {POOL_PATIENCE_S:g} s") from error
    except (OperationalError, InterfaceError) as error:
        raise DatabaseUnavailable(reason=_first_line(error)) from error
    except DBAPIError as error:
        # No statement means that the connection failed: the file is not a database, or the driver does not know a parameter.
        if error.connection_invalidated or error.statement is None or _is_damaged(error):
            raise DatabaseUnavailable(reason=_first_line(error)) from error
        raise


def _is_damaged(error: DBAPIError) -> bool:
    return isinstance(error.orig, sqlite3.DatabaseError) and getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def is_busy(error: DatabaseUnavailable) -> bool:
    """Whether another process holds SQLite's lock. The database is then in use, and not away."""
    cause = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else None
    return isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def take_turn(session: Session, name: str) -> datetime:
    """Wait until no other transaction holds the turn of this name, and hold the turn until this transaction ends. Returns the time.

    So no other holder changes anything between the statements of this transaction. On SQLite only one transaction writes at a time anyway.
    """
    if session.get_bind().dialect.name != "postgresql":
        return database_now(session)
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    _, now = session.execute(select(func.pg_advisory_xact_lock(key), func.clock_timestamp())).one()
    return cast("datetime", now).astimezone(UTC)


def database_now(session: Session) -> datetime:
    """The clock of leases: the clock of PostgreSQL, because many hosts have many clocks. For SQLite the clock of the machine."""
    if session.get_bind().dialect.name == "postgresql":
        now = session.scalar(select(func.clock_timestamp()))
        assert isinstance(now, datetime)
        return now.astimezone(UTC)
    return datetime.now(UTC)
