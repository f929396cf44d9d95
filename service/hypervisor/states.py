"""libvirt's states of a domain, and the reasons of these states."""

from service.hypervisor.handle import libvirt
from service.model.inventory import DomainState

STATES = {
    libvirt.VIR_DOMAIN_RUNNING: DomainState.running,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.running,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.paused,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.shut_off,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.shut_off,
}

_CLEAN = frozenset({libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF_DAEMON})
_UNCLEAN = frozenset({libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED})
MOVING = frozenset(
    {
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_SAVE),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
    }
)

MIGRATED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)


def was_clean(state: int, reason: int) -> bool | None:
    """Whether the domain was shut off cleanly. None: it is not shut off, or libvirt does not know."""
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return False
    if state != libvirt.VIR_DOMAIN_SHUTOFF:
        return None
    if reason in _CLEAN:
        return True
    return False if reason in _UNCLEAN else None


_CRASHED = frozenset({libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED})


def has_crashed(state: int, reason: int) -> bool:
    """Whether the domain is off because its QEMU ended by itself or was killed. Nobody asked libvirt for that."""
    return state == libvirt.VIR_DOMAIN_CRASHED or (state == libvirt.VIR_DOMAIN_SHUTOFF and reason in _CRASHED)
