"""An agent that libvirt refuses, although it has opened its port.

libvirt may note an error of the agent of a QEMU that was killed only when the domain has stopped already (qemuProcessHandleAgentError).
Then it refuses the agent of the next QEMU, too, and forgets the error only when the port closes, or when the domain stops once more.
"""

import time
from collections.abc import Callable

import libvirt

from tests.lab.guests import BOOT_TIMEOUT, LabGuest

REFUSED_FOR_S = 5.0
"""Seconds of refusals that are taken for libvirt's last word."""


def start_again_if_refused(guest: LabGuest, start: Callable[[], None], note: Callable[[str], None]) -> None:
    """`start`: until the guest is ready."""
    if is_refused(guest):
        note("libvirt refuses the agent for an error of an earlier one: the guest starts once more")
        guest.power_off()
        start()


def is_refused(guest: LabGuest, for_s: float = REFUSED_FOR_S) -> bool:
    """Whether libvirt refuses every command for so long while the port is open. False if it answers, or never opens the port."""
    begun = time.monotonic()
    deadline = begun + BOOT_TIMEOUT
    while time.monotonic() - begun < for_s:
        if time.monotonic() > deadline:
            return False
        try:
            guest.agent({"execute": "guest-ping"}, timeout=2)
        except libvirt.libvirtError:
            if not guest.agent_connected():
                begun = time.monotonic()
            time.sleep(0.1)
        else:
            return False
    return True
