"""Faults of libvirt and of QEMU."""

import signal
import time
from contextlib import suppress
from datetime import UTC, datetime

import libvirt

from tests.chaos.faults.strike import Strike, fault, send
from tests.chaos.pauses import Pause
from tests.chaos.stage import Stage, until
from tests.lab import daemon

AGENT_RESTART_S = 8.0


@fault()
def libvirt_connection_cut(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.relay.close()
    strike.obstacle_s = strike.pause(0.1, 1.5)
    strike.stage.relay.open()


@fault()
def libvirt_slow(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.relay.delay_s = strike.random.uniform(0.05, 0.6)
    strike.obstacle_s = strike.pause(0.5, 1.5) + strike.stage.relay.delay_s
    strike.stage.relay.delay_s = 0.0


def _restart_a_jammed_agent(stage: Stage) -> None:
    stage.liar.restart_later(AGENT_RESTART_S)


def _agent_is_well(stage: Stage) -> None:
    stage.guest.wait_agent()
    stage.liar.needs_no_restart()


@fault(weight=0.5, is_alone=True, prepare=_restart_a_jammed_agent, clean_up=_agent_is_well)
def libvirtd_killed(strike: Strike) -> None:
    """Only where the daemon is the lab's own. The guests live on.

    Killed between two parts of an agent's answer, the next libvirtd meets the rest of it and has no agent until that one is restarted.
    """
    strike.wait_for_window()
    begun = time.monotonic()
    if daemon.kill_own() is not None:
        strike.stage.guest.wait_agent()
        strike.obstacle_s = time.monotonic() - begun


@fault(weight=0.5)
def qemu_killed(strike: Strike) -> None:
    strike.hits_guest = True
    strike.wait_for_window()
    send(strike.stage.qemu_pid(), signal.SIGKILL)
    until(lambda: not strike.stage.is_running(), 10, "QEMU lives on")
    strike.pause(0.0, 0.5)
    strike.stage.revive_guest()


@fault(weight=0.5)
def guest_destroyed(strike: Strike) -> None:
    strike.hits_guest = True
    strike.wait_for_window()
    strike.stage.guest.power_off()
    strike.stage.revive_guest()


@fault(weight=0.5)
def guest_reset(strike: Strike) -> None:
    strike.hits_guest = True
    strike.wait_for_window()
    mark = strike.stage.guest.mark()
    strike.stage.guest.domain.reset(0)
    strike.stage.guest.wait_serial("^LAB ready", 60, since=mark)
    strike.stage.guest.wait_serial("^METER ", 60, since=mark)


@fault()
def guest_paused(strike: Strike) -> None:
    strike.wait_for_window()
    domain, begin = strike.stage.guest.domain, datetime.now(UTC)
    # A snapshot that is under way pauses and resumes the guest itself.
    with suppress(libvirt.libvirtError):
        domain.suspend()
    strike.obstacle_s = strike.pause(0.2, 1.5)
    with suppress(libvirt.libvirtError):
        domain.resume()
    strike.pauses.append(Pause(begin, datetime.now(UTC)))
    strike.stage.note(f"paused: {strike.pauses[-1]}")
