"""The guest is shut down or started anew by itself, as its owner would do it, while it may be frozen."""

from contextlib import suppress

import libvirt

from tests.chaos.faults.strike import Strike, fault
from tests.chaos.stage import until
from tests.lab.guests import LOST_ANSWER

OFF_S = 30.0


@fault(weight=0.3)
def guest_shut_down(strike: Strike) -> None:
    strike.hits_guest = True
    strike.wait_for_window()
    domain = strike.stage.guest.domain
    # A guest that stands in the middle of its own reboot or snapshot does not hear the button.
    until(lambda: _pressed_off(domain), 10, "the power button cannot be pressed", pause=0.1)
    until(lambda: not strike.stage.is_running(), OFF_S, "the guest did not shut down", pause=0.05)
    strike.stage.note("the guest has shut down")
    strike.pause(0.0, 1.0)
    strike.stage.revive_guest()


@fault(weight=0.3)
def guest_rebooted_by_button(strike: Strike) -> None:
    """libvirt presses the power button and starts the guest anew in the same QEMU when it is down."""
    strike.hits_guest = True
    strike.wait_for_window()
    mark = strike.stage.guest.mark()
    strike.stage.guest.domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)
    _wait_until_up(strike, mark)


@fault(weight=0.3)
def guest_rebooted_by_agent(strike: Strike) -> None:
    """The agent takes it only while the guest is thawed: it is asked until it does, so it comes before the freeze or after the thaw."""
    strike.hits_guest = True
    strike.wait_at_random()
    mark = strike.stage.guest.mark()
    until(lambda: _told_to_reboot(strike, mark), 30, "the agent does not reboot the guest", pause=0.02)
    _wait_until_up(strike, mark)


def _pressed_off(domain: libvirt.virDomain) -> bool:
    with suppress(libvirt.libvirtError):
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        return True
    return not domain.isActive()


def _told_to_reboot(strike: Strike, mark: int) -> bool:
    """A reboot is never answered, so a lost answer is no refusal."""
    try:
        strike.stage.guest.agent({"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}, timeout=1)
    except libvirt.libvirtError as error:
        return error.get_error_code() in LOST_ANSWER
    return strike.stage.guest.mark() > mark


def _wait_until_up(strike: Strike, mark: int) -> None:
    strike.stage.guest.wait_serial("^LAB ready", 60, since=mark)
    strike.stage.guest.wait_serial("^METER ", 60, since=mark)
    strike.stage.note("the guest has started anew")
