"""One guest through a libvirt connection that nobody else uses: for a process that has nothing else to do, and must stay small."""

import threading
from contextlib import suppress
from typing import Any

from service.errors import DomainGone, LibvirtUnavailable, StillpointError
from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain, LibvirtError, libvirt

KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_COUNT = 3


def open_guest(uri: str, uuid: str) -> Guest:
    """The guest of a domain. Its connection is made again whenever it breaks. Raises LibvirtUnavailable, DomainGone."""
    connections = _Connections(uri)
    try:
        return Guest(LibvirtDomain(connections.look_up(uuid), connections.look_up), uri)
    except LibvirtError as error:
        raise _translated(error, uri, uuid) from error


def _translated(error: Any, uri: str, uuid: str) -> StillpointError:
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainGone(uri=uri, domain=uuid)
    return LibvirtUnavailable(uri=uri, reason=str(error))


class _Connections:
    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._connection: Any = None
        libvirt.registerErrorHandler(lambda *_: None, None)
        # Without an event loop libvirt has no keepalive, and a daemon that hangs would hold a thaw for ever.
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, name="libvirt-events", daemon=True).start()

    def look_up(self, uuid: str) -> Any:
        """Raises LibvirtError."""
        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self._uri)
            self._connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        return self._connection.lookupByUUIDString(uuid)


def _run_events() -> None:
    while True:
        # The calls that it was for fail by themselves; this thread has nobody to tell.
        with suppress(LibvirtError):
            libvirt.virEventRunDefaultImpl()
