"""Saves round trips to PostgreSQL, each of which costs a request the time of the network.

A transaction begins together with its first statement. A connection that was just in use is not tested, because its socket shows whether
the server hung up. A connection that was idle for a while is tested, because its socket does not show a dead network.
"""

import select
import time
from typing import Any, Self, cast

import psycopg
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError

TRUSTED_S = 1.0
"""Seconds after its last use for which a connection with a silent socket counts as alive. After that it is tested."""
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""The isolation level is named, because a transaction that has waited for a turn or a lock must see what was committed meanwhile."""
_RESTS_SINCE = "stillpoint_rests_since"


class LateConnection(psycopg.Connection[Any]):
    """The driver is in autocommit mode, because it would otherwise wait for the answer to BEGIN before it sends the first statement."""

    must_begin = False
    """A transaction was begun, and nothing of it was sent yet."""


class LateCursor(psycopg.Cursor[Any]):
    """Sends BEGIN together with the first statement of a transaction."""

    def execute(self, *arguments: Any, **options: Any) -> Self:
        if not self._must_begin():
            return super().execute(*arguments, **options)
        with self.connection.pipeline():
            self.connection.execute(_BEGIN)
            return super().execute(*arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        if self._must_begin():
            self.connection.execute(_BEGIN)
        super().executemany(*arguments, **options)

    def _must_begin(self) -> bool:
        assert isinstance(self.connection, LateConnection)
        must, self.connection.must_begin = self.connection.must_begin, False
        return must


def save_round_trips(engine: Engine) -> None:
    """Set up an engine whose connections are LateConnections."""

    @event.listens_for(engine, "connect")
    def _leave_begin_to_us(connection: LateConnection, _record: object) -> None:
        connection.autocommit = True

    @event.listens_for(engine, "begin")
    def _begin_with_the_first_statement(connection: Connection) -> None:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, LateConnection)
        driver.must_begin = connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT"

    @event.listens_for(engine, "checkin")
    def _rest(connection: LateConnection | None, record: Any) -> None:
        # None: the connection is known to be dead.
        if connection is not None:
            connection.must_begin = False
            # SQLAlchemy has reset the connection to its own default, which is not autocommit.
            connection.autocommit = True
            record.info[_RESTS_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _look_whether_it_lives(connection: LateConnection, record: Any, _proxy: object) -> None:
        rests_since = record.info.pop(_RESTS_SINCE, None)
        # None: the connection was just made.
        if rests_since is not None and (time.monotonic() - rests_since > TRUSTED_S or _has_news(connection)):
            _ping(engine, connection)


def _has_news(connection: LateConnection) -> bool:
    """Whether the server has sent something without a question, or has hung up."""
    if connection.closed:
        return True
    socket = select.poll()
    socket.register(connection.fileno(), select.POLLIN)
    return bool(socket.poll(0))


def _ping(engine: Engine, connection: LateConnection) -> None:
    """Raises InvalidatePoolError: the pool then makes a new connection, and drops the older connections."""
    try:
        engine.dialect.do_ping(cast("DBAPIConnection", connection))
    except psycopg.Error as error:
        raise InvalidatePoolError from error
