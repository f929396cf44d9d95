"""Limits of a connection to PostgreSQL, so that a server that does not answer and a dead network are noticed.

The server's own limits end slow statements. If the server itself hangs, only the client can notice, so the client's limit for an answer
is a little longer than the server's. A dead network is noticed by keepalives, and by data that the other side does not acknowledge.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection

from service.db.postgresql_silence import ANSWER_S, TCP
from service.db.postgresql_trips import LateConnection, LateCursor

STATEMENT_S = 15
"""Seconds for one statement. After that the server ends it."""
LOCK_S = 10
"""Seconds that a statement waits for a lock. After that the server ends it."""
IDLE_IN_TRANSACTION_S = 60
"""Seconds that a transaction may be idle. After that the server ends it: a stopped process must not keep its locks for longer."""
_LIMITS = (
    f"SET statement_timeout = '{STATEMENT_S}s'; SET lock_timeout = '{LOCK_S}s'; "
    f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_S}s'"
)
_NO_LIMITS = (
    "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true), "
    "set_config('idle_in_transaction_session_timeout', '0', true)"
)


class ServerSilent(psycopg.OperationalError):
    """The server did not answer in time, and its connection is closed."""


class BoundedConnection(LateConnection):
    """A connection that is closed if the server does not answer within `answer_s`."""

    answer_s: float | None = ANSWER_S

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """Raises ServerSilent."""
        if self.answer_s is None:
            return super().wait(gen, *arguments, **options)
        return super().wait(self._bounded(gen, self.answer_s), *arguments, **options)

    def _bounded(self, gen: Generator[Any, Any, Any], limit_s: float) -> Generator[Any, Any, Any]:
        deadline = time.monotonic() + limit_s
        try:
            wanted = next(gen)
            while True:
                # The driver sends an empty value after a short wait without an answer.
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise ServerSilent(f"the server did not answer within {limit_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def connect(_dialect: object, _record: object, arguments: Any, parameters: dict[str, Any]) -> BoundedConnection:
    """For SQLAlchemy's event `do_connect`."""
    return BoundedConnection.connect(*arguments, **{**TCP, **parameters}, cursor_factory=LateCursor)


def set_limits(connection: BoundedConnection, _record: object) -> None:
    """For SQLAlchemy's event `connect`. The limits are set by a statement, because a connection pooler may refuse them as parameters."""
    connection.execute(_LIMITS)


@contextmanager
def may_take_long(connection: Connection) -> Iterator[None]:
    """Lift the limits, for the transaction of a migration."""
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, BoundedConnection)
    driver.answer_s = None
    try:
        connection.exec_driver_sql(_NO_LIMITS)
        yield
    finally:
        driver.answer_s = ANSWER_S
