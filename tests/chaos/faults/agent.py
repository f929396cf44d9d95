"""Faults of the agent in the guest."""

from contextlib import suppress

import libvirt

from tests.chaos.faults.strike import Strike, fault
from tests.chaos.stage import PATIENCE_S


@fault()
def agent_killed(strike: Strike) -> None:
    _in_guest_soon(strike, "kill -9 $(pidof qemu-ga)")
    strike.obstacle_s = 0.5


@fault()
def agent_stopped(strike: Strike) -> None:
    seconds = strike.random.uniform(0.3, 1.5)
    _in_guest_soon(strike, f"agent=$(pidof qemu-ga); kill -STOP $agent; sleep {seconds:.2f}; kill -CONT $agent")
    strike.obstacle_s = seconds


def _in_guest_soon(strike: Strike, script: str) -> None:
    """Before the job is at its window: the agent takes no programs while the guest is frozen."""
    guest, mark = strike.stage.guest, strike.stage.guest.mark()
    with suppress(libvirt.libvirtError):
        delay = strike.random.uniform(0.05, 0.5)
        arguments = {"path": "/bin/sh", "arg": ["-c", f"sleep {delay:.2f}; {script}; echo STRUCK > /dev/console"]}
        guest.agent({"execute": "guest-exec", "arguments": arguments})
        # A busy guest comes to it late: not in the middle of the next round.
        guest.wait_serial("STRUCK", PATIENCE_S, since=mark)
