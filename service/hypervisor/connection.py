"""The connection to the host's libvirt: made when it is needed, watched, and made again when it breaks."""

import threading
from collections.abc import Callable
from typing import Any

from service import log
from service.errors import DomainGone, LibvirtUnavailable
from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain, LibvirtError, libvirt

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3

_logger = log.get(__name__)
_event_loop_started = threading.Lock()
_event_loop_running = False


def _ignore_stderr(_context: Any, _error: Any) -> None:
    """libvirt prints every error on stderr by default; ours are raised, logged and stored."""


def start_event_loop() -> None:
    """libvirt's event loop in one daemon thread per process; must come before the first connection is opened (F§4.1)."""
    global _event_loop_running  # noqa: PLW0603 - the loop belongs to the process: libvirt allows one registration
    with _event_loop_started:
        if _event_loop_running:
            return
        libvirt.registerErrorHandler(_ignore_stderr, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_running = True


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except LibvirtError as error:
            _logger.warning("libvirt_event_loop", error=str(error))


class HostConnection:
    """One libvirt connection for all threads of a worker. Calls raise LibvirtUnavailable while libvirt is away."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._connection: Any = None
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """`listener` is called (from libvirt's event thread) when a domain starts, stops, appears or loses its agent."""
        self._listeners.append(listener)

    def versions(self) -> dict[str, str]:
        connection = self._open()
        try:
            return {
                "libvirt": _dotted(connection.getLibVersion()),
                "hypervisor": f"{connection.getType()} {_dotted(connection.getVersion())}",
                "hostname": str(connection.getHostname()),
            }
        except LibvirtError as error:
            raise self._lost(error) from error

    def guests(self) -> list[Guest]:
        """Every domain of the host, running or not."""
        connection = self._open()
        try:
            return [Guest(LibvirtDomain(domain, self._look_up), self.uri) for domain in connection.listAllDomains(0)]
        except LibvirtError as error:
            raise self._lost(error) from error

    def guest(self, name_or_uuid: str) -> Guest:
        """Raises DomainGone when the host has no such domain."""
        connection = self._open()
        for lookup in (connection.lookupByUUIDString, connection.lookupByName):
            try:
                return Guest(LibvirtDomain(lookup(name_or_uuid), self._look_up), self.uri)
            except LibvirtError as error:
                if _error_code(error) not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                    raise self._lost(error) from error
        raise DomainGone(uri=self.uri, domain=name_or_uuid)

    def _look_up(self, uuid: str) -> Any:
        return self._open().lookupByUUIDString(uuid)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _open(self) -> Any:
        with self._lock:
            if self._connection is not None and self._is_alive():
                return self._connection
            self._drop()
            start_event_loop()
            try:
                connection = libvirt.open(self.uri)
                _keep_alive(connection)
                self._subscribe(connection)
            except LibvirtError as error:
                raise LibvirtUnavailable(uri=self.uri, reason=str(error)) from error
            self._connection = connection
            _logger.info("libvirt_connected", uri=self.uri)
            return connection

    def _is_alive(self) -> bool:
        try:
            return bool(self._connection.isAlive())
        except LibvirtError:
            return False

    def _subscribe(self, connection: Any) -> None:
        for event in (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE):
            connection.domainEventRegisterAny(None, event, self._changed, None)
        connection.registerCloseCallback(self._changed, None)

    def _changed(self, *_details: Any) -> None:
        for listener in self._listeners:
            listener()

    def _lost(self, error: Exception) -> LibvirtUnavailable:
        return LibvirtUnavailable(uri=self.uri, reason=str(error))

    def _drop(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.unregisterCloseCallback()
            self._connection.close()
        except LibvirtError:
            # The other end is gone: there is nothing left to close.
            pass
        self._connection = None


def _keep_alive(connection: Any) -> None:
    try:
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    except LibvirtError as error:
        # A driver without a daemon behind it has no connection that could break.
        if _error_code(error) != libvirt.VIR_ERR_NO_SUPPORT:
            raise


def _error_code(error: Any) -> int:
    return int(error.get_error_code())


def _dotted(number: int) -> str:
    """libvirt's 9000000 is 9.0.0."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
