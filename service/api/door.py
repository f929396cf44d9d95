"""Decides which connections may stay, so that strangers never take the descriptors that the worker and the database need.

A connection that has not sent a request with a valid token is a stranger. If all connections are in use, a new connection is accepted and
the oldest stranger is closed. So a client that opens thousands of connections and sends nothing keeps no other client out.
"""

import errno
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from prometheus_client import Counter
from starlette.types import ASGIApp
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from service import log

HEAD_SECONDS = 10.0
"""Seconds that a new connection may take for its first request line and headers. Then it is closed."""
KEPT_SECONDS = 30.0
"""Seconds that a connection may be idle after an answer. Then it is closed."""
BODY_SECONDS = 30.0
"""Seconds that a connection may take for the body of a request. Then it is closed."""
HEAD_BYTES = 16 * 1024
"""Bytes of the request line and headers together. A longer head is refused."""
AT_ONCE = 16
"""Connections that are accepted in one go, before the count of open connections is checked again."""
MAX_FILES = 65_536
"""Open files. The service does not raise its limit above this: programs that it starts close each possible descriptor one by one."""
LOG_EVERY_S = 60.0
"""Seconds between two log lines that all connections are in use."""
TICKS_PER_SWEEP = 10
"""Ticks of the server, which come every 0.1 s, between two searches for connections that are too slow."""
CLOSED = Counter("stillpoint_connections_closed", "Connections that the service closed by itself, by why", ["reason"])
_logger = log.get(__name__)


def raise_open_files() -> int:
    """Let this process open as many files as it may, and return that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_FILES if soft == resource.RLIM_INFINITY else soft
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def serve(
    app: ASGIApp, listener: socket.socket, *, max_connections: int, grace_seconds: int, wind_down: Callable[[], object] = lambda: None
) -> None:
    """Answer requests until a stop signal came and `wind_down` has returned.

    At least half of the open files stays for the worker, the database and libvirt.
    """
    door = Door(min(max_connections, raise_open_files() // 2))
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_protocol_of(door),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace_seconds,
        timeout_keep_alive=int(KEPT_SECONDS),
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    with Listener(listener, door) as guarded:
        _Server(config, door, wind_down).run(sockets=[guarded])


class Door:
    """The connections of one server. Everything here runs in its event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: In the order of their arrival.
        self._strangers: dict[Connection, None] = {}
        self._known: dict[Connection, None] = {}
        self._logged_at = float("-inf")

    def make_room(self) -> bool:
        """Make room for one more connection. False: every connection is working on a request with a valid token."""
        if len(self._strangers) + len(self._known) < self._limit:
            return True
        self._log_limit()
        strangers = (connection for connection in self._strangers if not connection.is_let_in)
        idle = (connection for connection in self._known if connection.is_idle)
        leaving = next(strangers, None) or next(idle, None)
        if leaving is None:
            CLOSED.labels("refused").inc()
            return False
        self._close(leaving, "evicted")
        return True

    def sweep(self) -> None:
        """Close the connections that have sent nothing for too long."""
        now = time.monotonic()
        for connection in [*self._strangers, *self._known]:
            if connection.is_late(now):
                self._close(connection, "late")

    def entered(self, connection: "Connection") -> None:
        self._strangers[connection] = None

    def is_known(self, connection: "Connection") -> None:
        if self._strangers.pop(connection, self) is not self:
            self._known[connection] = None

    def left(self, connection: "Connection") -> None:
        self._strangers.pop(connection, None)
        self._known.pop(connection, None)

    def _close(self, connection: "Connection", reason: str) -> None:
        self.left(connection)
        CLOSED.labels(reason).inc()
        connection.transport.abort()

    def _log_limit(self) -> None:
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            _logger.warning("connections_at_limit", limit=self._limit, strangers=len(self._strangers), known=len(self._known))


class Connection(H11Protocol):
    """One connection, and until when the service waits for it."""

    door: Door

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Only faults of the application are logged. Otherwise every broken request of a stranger would be a line in the log.
        self.logger = _FAULTS
        self._waits_until = time.monotonic() + HEAD_SECONDS
        self._body_of: object = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.door.entered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.left(self)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._waits_until = time.monotonic() + KEPT_SECONDS
        if self.is_let_in:
            self.door.is_known(self)
        super().on_response_complete()

    @property
    def is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    @property
    def is_let_in(self) -> bool:
        """Whether its latest request has a valid token."""
        scope: HTTPScope | None = self.scope
        return scope is not None and "token_id" in scope["state"]

    def is_late(self, now: float) -> bool:
        if self.is_idle:
            return now > self._waits_until
        if not self.cycle.more_body:
            return False
        if self._body_of is not self.cycle:
            self._body_of, self._waits_until = self.cycle, now + BODY_SECONDS
        return now > self._waits_until


class Listener(socket.socket):
    """The listening socket that asyncio uses. It accepts only connections that the door lets in, and never runs out of descriptors."""

    def __init__(self, listening: socket.socket, door: Door) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=os.dup(listening.fileno()))
        self.setblocking(False)
        self._door = door
        self._taken = 0
        self._spare = _spare()

    def accept(self) -> tuple[socket.socket, Any]:
        if self._taken >= AT_ONCE:
            self._taken = 0
            raise BlockingIOError
        try:
            taken, address = super().accept()
        except BlockingIOError:
            self._taken = 0
            raise
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._send_away()
            raise BlockingIOError from error
        self._taken += 1
        if not self._door.make_room():
            taken.close()
            raise BlockingIOError
        return taken, address

    def close(self) -> None:
        super().close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _send_away(self) -> None:
        """Accept and close one connection, with the descriptor that was kept for this.

        A connection that stays in the queue would wake the event loop again at once, for ever.
        """
        if self._spare is not None:
            os.close(self._spare)
        with suppress(OSError):
            super().accept()[0].close()
        CLOSED.labels("no_descriptor").inc()
        self._spare = _spare()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, door: Door, wind_down: Callable[[], object]) -> None:
        super().__init__(config)
        self._door = door
        self._wind_down = wind_down
        self._is_stopping = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        threading.Thread(target=self._end, args=(sig, frame), name="wind-down", daemon=True).start()

    def _end(self, sig: int, frame: FrameType | None) -> None:
        try:
            self._wind_down()
        finally:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_SWEEP == 0:
            self._door.sweep()
        return await super().on_tick(counter)


def _protocol_of(of: Door) -> type[Connection]:
    class ConnectionOfDoor(Connection):
        door = of

    return ConnectionOfDoor


def _spare() -> int | None:
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


_FAULTS = logging.getLogger("service.http")
_FAULTS.setLevel(logging.ERROR)
