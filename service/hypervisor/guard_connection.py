"""One guest over a libvirt connection of its own, for the guard process, which must stay small."""

import threading
from contextlib import suppress
from typing import Any

from service.errors import DomainGone, LibvirtUnavailable, StillpointError
from service.hypervisor.bounded_domain import BoundedDomain
from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain, LibvirtError, is_alive, libvirt

KEEPALIVE_INTERVAL_S = 2
"""Seconds between two keepalive messages."""
KEEPALIVE_COUNT = 3
"""Unanswered keepalive messages. After them libvirt closes the connection."""


def connect_guest(uri: str, uuid: str) -> Guest:
    """The guest of a domain. A connection that breaks or hangs is replaced. Raises LibvirtUnavailable, DomainGone."""
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
        # Without an event loop libvirt has no keepalive, and a libvirtd that hangs would delay a thaw for ever.
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, name="libvirt-events", daemon=True).start()

    def look_up(self, uuid: str) -> Any:
        """Raises LibvirtError. This has no limit of its own, because it runs inside the bounded call that needs the connection."""
        connection = self._connection
        if connection is None or not is_alive(connection):
            connection = self._connection = libvirt.open(self._uri)
            connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        return connection.lookupByUUIDString(uuid)

    def is_current(self, connection: Any) -> bool:
        return connection is self._connection and is_alive(connection)

    def retire(self, connection: Any) -> None:
        """A call over this connection hung: the next call uses a new connection. The old one is kept, because a close would hang, too."""
        if connection is self._connection:
            self._retired.append(connection)
            self._connection = None


def _run_events() -> None:
    while True:
        # The calls that wait for this connection fail by themselves, so this thread need not report the error.
        with suppress(LibvirtError):
            libvirt.virEventRunDefaultImpl()
