"""The connection to the host's libvirt. It is made when it is needed, watched, and made again after it breaks."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from service import log
from service.deadlines import HELPERS, CallTimedOut, HelperThreads
from service.errors import DomainGone, LibvirtUnavailable
from service.hypervisor.agent import is_connection_lost
from service.hypervisor.bounded_domain import BOUNDS, BoundedDomain, Bounds
from service.hypervisor.calls import LibvirtCalls
from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain, LibvirtError, file_error, is_alive, libvirt
from service.hypervisor.security_labels import SecurityLabel, of_host

T = TypeVar("T")

KEEPALIVE_INTERVAL_S = 5
"""Seconds between two keepalive messages."""
KEEPALIVE_COUNT = 3
"""Unanswered keepalive messages. After them libvirt closes the connection."""
RETIRED_KEPT_S = 120.0
"""Seconds for which a connection with a hung call is kept, because other calls may still get answers over it. Then it is closed."""

_logger = log.get(__name__)
_event_loop_started = threading.Lock()
_event_loop_running = False
EVENT_BEAT_S = 5.0
"""Seconds between two beats of libvirt's event thread."""
_event_beat_at = 0.0


def _ignore_stderr(_context: Any, _error: Any) -> None:
    """libvirt prints every error on stderr by default. The service raises, logs and stores errors instead."""


def start_event_loop() -> None:
    """Run libvirt's event loop in one daemon thread of this process. This must come before the first connection is opened (F§4.1)."""
    global _event_loop_running  # noqa: PLW0603 - the loop belongs to the process: libvirt allows one registration
    with _event_loop_started:
        if _event_loop_running:
            return
        libvirt.registerErrorHandler(_ignore_stderr, None)
        libvirt.virEventRegisterDefaultImpl()
        _beat()
        libvirt.virEventAddTimeout(int(EVENT_BEAT_S * 1000), _beat, None)
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_running = True


def event_loop_silent_s() -> float:
    """Seconds since the last beat of the event thread, which beats every EVENT_BEAT_S. 0.0: the thread was not needed yet.

    Without this thread libvirt has no keepalive, and reports no events of the host.
    """
    return time.monotonic() - _event_beat_at if _event_loop_running else 0.0


def _beat(_timer: int = 0, _opaque: object = None) -> None:
    global _event_beat_at  # noqa: PLW0603 - as above
    _event_beat_at = time.monotonic()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except LibvirtError as error:
            _logger.warning("libvirt_event_loop", error=str(error))


class HostConnection:
    """One libvirt connection for all threads of a worker. Calls raise LibvirtUnavailable while libvirt does not answer."""

    def __init__(self, uri: str, bounds: Bounds = BOUNDS, helpers: HelperThreads = HELPERS) -> None:
        self.uri = uri
        self._bounds = bounds
        self._helpers = helpers
        #: Guards the fields. It is never held during a call to libvirt.
        self._lock = threading.Lock()
        #: Held by the thread that connects, for at most `open_s`.
        self._connecting = threading.Lock()
        self._connection: Any = None
        self._retired: list[tuple[float, Any]] = []
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """`listener` is called (from libvirt's event thread) when a domain starts, stops, appears or loses its agent."""
        self._listeners.append(listener)

    def versions(self) -> dict[str, str]:
        connection = self._open()
        with self._translated(connection):
            return self._run("virConnectGetVersion", self._bounds.read_s, partial(_versions, connection))

    def guests(self) -> list[Guest]:
        """Every domain of the host, running or not."""
        connection = self._open()
        with self._translated(connection):
            domains = self._run("virConnectListAllDomains", self._bounds.read_s, partial(connection.listAllDomains, 0))
            return [self._guest(domain) for domain in domains]

    def guest(self, name_or_uuid: str) -> Guest:
        """Raises DomainGone when the host has no such domain."""
        connection = self._open()
        for lookup in (connection.lookupByUUIDString, connection.lookupByName):
            with self._translated(connection):
                try:
                    return self._guest(self._run("virDomainLookup", self._bounds.read_s, partial(lookup, name_or_uuid)))
                except LibvirtError as error:
                    if _error_code(error) not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                        raise
        raise DomainGone(uri=self.uri, domain=name_or_uuid)

    def names_and_uuids(self) -> dict[str, str]:
        """The UUID of every domain of the host by its name."""
        return {guest.name: guest.uuid for guest in self.guests()}

    def define(self, xml: str) -> Guest:
        """Define a domain, or give a domain with this name and UUID another definition. Raises LibvirtCallFailed, LibvirtUnavailable.

        libvirt refuses a name that another UUID has, and a UUID that another name has.
        """
        connection = self._open()
        with self._translated(connection):
            domain = self._run("virDomainDefineXML", self._bounds.query_s, partial(_define, connection, self.uri, xml))
            return self._guest(domain)

    def file_error(self, path: str) -> int | None:
        """As `Guest.file_error`."""
        connection = self._open()
        with self._translated(connection):
            return self._run("virDomainSaveImageGetXMLDesc", self._bounds.read_s, partial(file_error, connection, path))

    def capabilities(self) -> str:
        """The XML of what the host can run."""
        connection = self._open()
        with self._translated(connection):
            return str(self._run("virConnectGetCapabilities", self._bounds.query_s, connection.getCapabilities))

    def domain_capabilities(self, arch: str, machine: str | None, virtualization: str) -> str | None:
        """The XML of what one kind of domain may have, models of CPUs among them. None: libvirt does not know the kind."""
        connection = self._open()
        ask = partial(connection.getDomainCapabilities, None, arch, machine, virtualization, 0)
        with self._translated(connection):
            try:
                return str(self._run("virConnectGetDomainCapabilities", self._bounds.query_s, ask))
            except LibvirtError as error:
                if is_connection_lost(error):
                    raise
                return None

    def security_drivers(self) -> dict[str, SecurityLabel]:
        """As `Guest.security_drivers`."""
        return of_host(self.capabilities())

    def close(self) -> None:
        """Close the connections. A close that hangs is not waited for, so that the process can end."""
        with self._lock:
            retired, self._retired = [connection for _, connection in self._retired], []
            current, self._connection = self._connection, None
        self._bury([*retired, *([] if current is None else [current])])

    def retire(self, connection: Any) -> None:
        """A call hung on this connection: the next call of any thread uses a new connection. Calls under way keep the old one."""
        with self._lock:
            if connection is not self._connection:
                return
            self._connection = None
            self._retired.append((time.monotonic(), connection))
        _logger.warning("libvirt_connection_retired", uri=self.uri)

    # --- domains --------------------------------------------------------------------------------

    def _guest(self, domain: Any) -> Guest:
        handle = LibvirtDomain(domain, self._look_up, self._is_current)
        return Guest(BoundedDomain(handle, self._bounds, lambda: self.retire(handle.connection), self._helpers), self.uri, self._helpers)

    def _look_up(self, uuid: str) -> Any:
        """Raises libvirtError, which the caller translates, and LibvirtUnavailable if libvirt does not answer."""
        connection = self._open()
        try:
            return self._run("virDomainLookup", self._bounds.read_s, partial(connection.lookupByUUIDString, uuid))
        except CallTimedOut as hung:
            raise self._hung(connection, hung) from hung

    def _is_current(self, connection: Any) -> bool:
        return connection is self._connection and is_alive(connection)

    # --- the connection -------------------------------------------------------------------------

    def _open(self) -> Any:
        connection = self._connection
        if connection is not None and is_alive(connection):
            return connection
        if not self._connecting.acquire(timeout=self._bounds.open_s):
            raise LibvirtUnavailable(uri=self.uri, reason="libvirt does not answer; another call is connecting and waits, too")
        try:
            connection = self._connection
            if connection is not None and is_alive(connection):
                return connection
            return self._connect()
        finally:
            self._connecting.release()

    def _connect(self) -> Any:
        self._sweep()
        start_event_loop()
        try:
            connection = self._run("virConnectOpen", self._bounds.open_s, self._connected, discard=_close)
        except LibvirtError as error:
            raise LibvirtUnavailable(uri=self.uri, reason=str(error)) from error
        except CallTimedOut as hung:
            raise self._hung(None, hung) from hung
        with self._lock:
            self._connection = connection
        _logger.info("libvirt_connected", uri=self.uri)
        return connection

    def _connected(self) -> Any:
        connection = libvirt.open(self.uri)
        _keep_alive(connection)
        for event in _EVENTS:
            connection.domainEventRegisterAny(None, event, self._changed, None)
        connection.registerCloseCallback(self._changed, None)
        return connection

    def _changed(self, *_details: Any) -> None:
        for listener in self._listeners:
            listener()

    def _sweep(self) -> None:
        """Close the connection that died, and retired connections that have died or are old."""
        oldest = time.monotonic() - RETIRED_KEPT_S
        with self._lock:
            gone = [] if self._connection is None else [self._connection]
            self._connection = None
            gone += [connection for since, connection in self._retired if since < oldest or not is_alive(connection)]
            self._retired = [(since, connection) for since, connection in self._retired if connection not in gone]
        self._bury(gone)

    def _bury(self, connections: list[Any]) -> None:
        """Close the connections in a helper thread, because a close can hang. Their callbacks keep them alive until they are closed."""
        if not connections:
            return
        with suppress(CallTimedOut):
            self._helpers.run(
                partial(_close_all, connections),
                self._bounds.close_s,
                call="virConnectClose",
                lane=f"close {id(connections)}",
            )

    def _run(self, call: str, limit_s: float, function: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
        return self._helpers.run(function, limit_s, call=call, lane=f"{call} {self.uri}", discard=discard)

    @contextmanager
    def _translated(self, connection: Any) -> Iterator[None]:
        try:
            yield
        except CallTimedOut as hung:
            raise self._hung(connection, hung) from hung
        except LibvirtError as error:
            raise LibvirtUnavailable(uri=self.uri, reason=str(error)) from error

    def _hung(self, connection: Any, hung: CallTimedOut) -> LibvirtUnavailable:
        if connection is not None:
            self.retire(connection)
        return LibvirtUnavailable(uri=self.uri, reason=f"{hung.call} was given up after {hung.waited_s * 1000:.0f} ms: {hung.why}")


_EVENTS = (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE)


def _define(connection: Any, uri: str, xml: str) -> Any:
    return LibvirtCalls("a new domain", uri)("virDomainDefineXML", lambda: connection.defineXML(xml))


def _versions(connection: Any) -> dict[str, str]:
    return {
        "libvirt": _dotted(connection.getLibVersion()),
        "hypervisor": f"{connection.getType()} {_dotted(connection.getVersion())}",
        "hostname": str(connection.getHostname()),
    }


def _close_all(connections: list[Any]) -> None:
    for connection in connections:
        _close(connection)


def _close(connection: Any) -> None:
    # If the other end is gone, closing fails, and nothing is left to close.
    with suppress(LibvirtError):
        connection.unregisterCloseCallback()
    with suppress(LibvirtError):
        connection.close()


def _keep_alive(connection: Any) -> None:
    try:
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    except LibvirtError as error:
        # A driver without a daemon has no connection that could break.
        if _error_code(error) != libvirt.VIR_ERR_NO_SUPPORT:
            raise


def _error_code(error: Any) -> int:
    return int(error.get_error_code())


def _dotted(number: int) -> str:
    """libvirt writes 9.0.0 as 9000000."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
