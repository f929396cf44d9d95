"""Makes one call to libvirt, and translates its failure."""

from collections.abc import Callable
from typing import Any, TypeVar

from service.errors import AgentBusy, DomainBusy, DomainGone, LibvirtCallFailed, LibvirtUnavailable, StillpointError
from service.hypervisor import agent
from service.hypervisor.handle import LibvirtError, libvirt

T = TypeVar("T")


class LibvirtCalls:
    """Each may raise LibvirtCallFailed, LibvirtCallTimedOut, LibvirtUnavailable, DomainGone, DomainBusy, AgentBusy."""

    def __init__(self, domain: str, uri: str) -> None:
        self.domain = domain
        self.uri = uri

    def __call__(self, call: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except LibvirtError as error:
            raise self.translated(call, error) from error
        except SystemError as error:
            # libvirt-python raises this for an error text that is not UTF-8, for example a text that quotes a file name.
            raise LibvirtCallFailed(call=call, libvirt_code=0, message="libvirt's error text is not UTF-8") from error

    def translated(self, call: str, error: Any) -> StillpointError:
        message = (error.get_error_message() or "no message").strip()
        if agent.is_connection_lost(error):
            return LibvirtUnavailable(uri=self.uri, reason=message)
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return DomainGone(uri=self.uri, domain=self.domain)
        holder = agent.lock_holder(error)
        if holder is not None and holder.startswith("agent="):
            return AgentBusy(domain=self.domain, command=call, timeout_ms=agent.LOCK_WAIT_MS, held_by=holder)
        if holder is not None:
            return DomainBusy(domain=self.domain, what=f"the lock of the domain is held by {holder}")
        return LibvirtCallFailed(call=call, libvirt_code=error.get_error_code(), message=message)
