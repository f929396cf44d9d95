"""Faults of a restore: its processes, the restored domain, and the repository that it reads."""

import signal
import time
from contextlib import AbstractContextManager

import libvirt

from tests.chaos.backups.repository import repository_of
from tests.chaos.faults.backup import HANGS_S
from tests.chaos.faults.strike import Strike, fault, send
from tests.chaos.remains import GUESTS
from tests.chaos.stage import PATIENCE_S, process_of_guest, until
from tests.lab import daemon
from tests.lab.bad_storage import Storage

PHASES = ("plan", "checksums", "checksums", "stop", "write", "write", "define", "start", "flatten", "flatten")


@fault(weight=0.6, plays="restore")
def restore_nothing(strike: Strike) -> None:
    """The undisturbed round."""


@fault(weight=1.5, plays="restore")
def restore_worker_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


@fault(weight=0.6, plays="restore")
def restore_worker_killed_twice(strike: Strike) -> None:
    restore_worker_killed(strike)
    strike.pause(0.5, 3.0)
    strike.stage.restart_worker()


@fault(weight=0.8, plays="restore")
def restore_hand_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    until(lambda: strike.kill_hand() or strike.is_over(), PATIENCE_S, "no process came to the repository", pause=0.002)


@fault(weight=0.6, plays="restore")
def restore_cancelled(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.cancel()


@fault(weight=0.4, is_alone=True, plays="restore")
def restore_libvirtd_killed(strike: Strike) -> None:
    """Only where the daemon is the lab's own."""
    _wait_at_its_work(strike)
    daemon.kill_own()


@fault(plays="restore")
def restore_instant_worker_killed(strike: Strike) -> None:
    strike.wait_for_phase("start", "flatten")
    strike.wait_at_random(2.0)
    strike.stage.worker.kill()
    strike.pause(0.0, 2.0)
    strike.stage.restart_worker()


@fault(plays="restore")
def restore_instant_qemu_killed(strike: Strike) -> None:
    """Its owner starts it again."""
    name = strike.stage.guest.name.replace(GUESTS, f"{GUESTS}r")
    if not strike.wait_for_phase("flatten"):
        return
    strike.wait_at_random(1.5)
    if (pid := process_of_guest(name)) is None:
        return
    send(pid, signal.SIGKILL)
    until(lambda: process_of_guest(name) is None, PATIENCE_S, "QEMU lives on")
    strike.pause(0.0, 1.5)
    until(lambda: _started(strike, name), PATIENCE_S, "the restored domain could not be started again", pause=0.1)


@fault(plays="restore")
def restore_instant_repository_hung(strike: Strike) -> None:
    """The guest waits, and goes on."""
    strike.wait_for_phase("start", "flatten")
    strike.wait_at_random(2.0)
    with _storage(strike).hung():
        strike.pause(0.5, 8.0)


@fault(plays="restore")
def restore_repository_hung(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).hung(), *HANGS_S)


@fault(weight=0.8, plays="restore")
def restore_repository_gone(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).gone(), 0.5, 6.0)


@fault(weight=0.6, plays="restore")
def restore_repository_read_only(strike: Strike) -> None:
    """A restore writes nothing there."""
    _meanwhile(strike, _storage(strike).read_only(patience_s=1.0), 0.5, 4.0)


@fault(weight=0.6, plays="restore")
def restore_repository_slow(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).slow(strike.random.choice([1_000_000, 6_000_000])), 1.0, 6.0)


def _storage(strike: Strike) -> Storage:
    return repository_of(strike.stage).storage


def _meanwhile(strike: Strike, fault: AbstractContextManager[object], least_s: float, most_s: float) -> None:
    _wait_at_its_work(strike)
    with fault:
        strike.pause(least_s, most_s)


def _wait_at_its_work(strike: Strike) -> None:
    phase = strike.random.choice(PHASES)
    strike.wait_for_phase(phase)
    time.sleep(strike.random.uniform(0.0, 1.5 if phase in ("checksums", "write", "flatten") else 0.1))
    strike.stage.note(f"struck in phase {phase}")


def _started(strike: Strike, name: str) -> bool:
    """Also by the job itself."""
    try:
        domain = strike.stage.guest.connection.lookupByName(name)
        if not domain.isActive():
            domain.create()
    except libvirt.libvirtError:
        # The job may have given it up, and removed it.
        return strike.is_over()
    return True
