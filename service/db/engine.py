"""One engine for SQLite and PostgreSQL; everything that differs between the two stands here."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.errors import DatabaseUnavailable, SettingInvalid

SQLITE_BUSY_TIMEOUT_MS = 5_000
SQLITE_BUSY_PAUSE_S = 0.005
CONNECT_TIMEOUT_S = 5


def open_engine(url: str | URL) -> Engine:
    """An engine for `sqlite:///…` or `postgresql+psycopg://…`. No connection is made yet."""
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(url)
    if backend == "postgresql":
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    raise SettingInvalid(setting="STILLPOINT_DATABASE_URL", reason=f"{backend} is not supported; use sqlite or postgresql+psycopg")


def _open_sqlite(url: str | URL) -> Engine:
    database = make_url(url).database
    if database and database != ":memory:":
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, connect_args={"check_same_thread": False, "timeout": SQLITE_BUSY_TIMEOUT_MS / 1000}, pool_size=10, max_overflow=20
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        # None: the driver must not open transactions by itself; "begin" below does, so that a
        # transaction that will write takes the lock at once instead of failing half-way.
        connection.isolation_level = None
        _switch_to_wal(connection)
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("stillpoint_read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _switch_to_wal(connection: Any) -> None:
    """SQLite answers "locked" at once, without its busy timeout, when two connections switch a new file together: so we wait."""
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
    """Sessions on one engine. `read` never takes a write lock; `write` commits at the end of the block."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._write = sessionmaker(engine, expire_on_commit=False)
        self._read = sessionmaker(engine.execution_options(stillpoint_read_only=True), expire_on_commit=False)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write. Raises DatabaseUnavailable when the database is locked or away."""
        with translated_errors(), self._write.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads. Raises DatabaseUnavailable when the database is locked or away."""
        with translated_errors(), self._read() as session:
            yield session

    def dispose(self) -> None:
        self.engine.dispose()


@contextmanager
def translated_errors() -> Iterator[None]:
    """A database that is locked, full, read-only or away is one error of ours; a programming error stays what it is."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise DatabaseUnavailable(reason=_first_line(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable(reason=_first_line(error)) from error
        raise


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def database_now(session: Session) -> datetime:
    """The clock of leases: PostgreSQL's own, because many hosts have many clocks; the machine's for SQLite."""
    if session.get_bind().dialect.name == "postgresql":
        now = session.scalar(select(func.clock_timestamp()))
        assert isinstance(now, datetime)
        return now.astimezone(UTC)
    return datetime.now(UTC)
