"""Limits of a connection to PostgreSQL: a server that stopped answering, and a network that swallows everything, are noticed.

The server's own limits end what is slow. Where the server itself stands still, only the client can tell, so each answer is waited for
no longer than a little more than the server is given. A dead network is told by keepalives, and by data that nobody acknowledges.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection

from service.db.postgresql_trips import LateConnection, LateCursor

ANSWER_S = 20.0
"""How long an answer of PostgreSQL is waited for."""
TCP: dict[str, int] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Parameters of libpq that tell a dead network."""
STATEMENT_S = 15
LOCK_S = 10
IDLE_IN_TRANSACTION_S = 60
"""A process that was stopped in the middle of a transaction keeps rows from all others for no longer."""
_LIMITS = (
    f"SET statement_timeout = '{STATEMENT_S}s'; SET lock_timeout = '{LOCK_S}s'; "
    f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_S}s'"
)
_NO_LIMITS = (
    "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true), "
    "set_config('idle_in_transaction_session_timeout', '0', true)"
)


class BoundedConnection(LateConnection):
    """A connection that is closed when the server does not answer within `answer_s`."""

    answer_s: float | None = ANSWER_S

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """Raises psycopg.OperationalError."""
        if self.answer_s is None:
            return super().wait(gen, *arguments, **options)
        return super().wait(self._bounded(gen, self.answer_s), *arguments, **options)

    def _bounded(self, gen: Generator[Any, Any, Any], limit_s: float) -> Generator[Any, Any, Any]:
        deadline = time.monotonic() + limit_s
        try:
            wanted = next(gen)
            while True:
                # Nothing is sent in when the driver has waited in vain for a moment.
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server did not answer within {limit_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def connect(_dialect: object, _record: object, arguments: Any, parameters: dict[str, Any]) -> BoundedConnection:
    """For SQLAlchemy's event `do_connect`."""
    return BoundedConnection.connect(*arguments, **{**TCP, **parameters}, cursor_factory=LateCursor)


def set_limits(connection: BoundedConnection, _record: object) -> None:
    """For SQLAlchemy's event `connect`. By statement, because a pooler in between refuses them as parameters of the connection."""
    connection.execute(_LIMITS)


@contextmanager
def may_take_long(connection: Connection) -> Iterator[None]:
    """For the transaction of a migration."""
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, BoundedConnection)
    driver.answer_s = None
    try:
        connection.exec_driver_sql(_NO_LIMITS)
        yield
    finally:
        driver.answer_s = ANSWER_S
