"""One guest through a libvirt connection that nobody else uses: for a process that has nothing else to do, and must stay small."""

import threading
from contextlib import suppress
from typing import Any

from service.errors import DomainGone, LibvirtUnavailable, StillpointError
from service.hypervisor.bounded_domain import BoundedDomain
from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain, LibvirtError, is_alive, libvirt

KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_COUNT = 3


def connect_guest(uri: str, uuid: str) -> Guest:
    """The guest of a domain. Its connection is made again when it breaks or hangs. Raises LibvirtUnavailable, DomainGone."""
    connections = _Connections(uri)
    try:
        handle = LibvirtDomain(connections.look_up(uuid), connections.look_up, connections.is_current)
    except LibvirtError as error:
        raise _translated(error, uri, uuid) from error
    return Guest(BoundedDomain(handle, on_hang=lambda: connections.retire(handle.connection)), uri)


def _translated(error: Any, uri: str, uuid: str) -> StillpointError:
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainGone(uri=uri, domain=uuid)
    return LibvirtUnavailable(uri=uri, reason=str(error))


class _Connections:
    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._connection: Any = None
        self._retired: list[Any] = []
        libvirt.registerErrorHandler(lambda *_: None, None)
        # Without an event loop libvirt has no keepalive, and a daemon that hangs would hold a thaw for ever.
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, name="libvirt-events", daemon=True).start()

    def look_up(self, uuid: str) -> Any:
        """Raises LibvirtError. Bounded where it is called from: in the call that finds its connection broken."""
        connection = self._connection
        if connection is None or not is_alive(connection):
            connection = self._connection = libvirt.open(self._uri)
            connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        return connection.lookupByUUIDString(uuid)

    def is_current(self, connection: Any) -> bool:
        return connection is self._connection and is_alive(connection)

    def retire(self, connection: Any) -> None:
        """A call over it hung: the next one goes over a new connection. It is kept, as closing it would hang as well."""
        if connection is self._connection:
            self._retired.append(connection)
            self._connection = None


def _run_events() -> None:
    while True:
        # The calls that it was for fail by themselves; this thread has nobody to tell.
        with suppress(LibvirtError):
            libvirt.virEventRunDefaultImpl()
