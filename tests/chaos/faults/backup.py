"""Faults of a backup: its processes, its guest, and its repository, which may be full, read-only, gone, hung or slow."""

import signal
import time
from contextlib import AbstractContextManager, suppress

from tests.chaos.backups.repository import repository_of
from tests.chaos.faults.strike import Strike, fault, send
from tests.chaos.overlay_disk import RESERVE_BYTES, OverlayDisk
from tests.chaos.stage import Stage, until
from tests.lab import daemon
from tests.lab.bad_storage import Storage
from tests.lab.places import LabError

LATE_PHASES = ("transfer", "compare", "seal", "merge")
COPYING = ("transfer",)
ROOM_BYTES = 12 << 20
#: More than the room, a MB at a time.
_WRITES = """
    for place in $(seq 0 29)
    do dd if=/dev/urandom of=/data/known bs=1M count=1 seek=$place conv=notrunc,fsync
    sleep 0.2
    done
"""
#: Longer than the silence that the settings of the stage allow (3 s), or shorter.
HANGS_S = (1.0, 8.0)


@fault(weight=0.6, plays="backup")
def backup_nothing(strike: Strike) -> None:
    """The undisturbed round."""


@fault(weight=1.5, plays="backup")
def backup_worker_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.stage.worker.kill()
    strike.obstacle_s = _restart(strike)


@fault(weight=0.6, plays="backup")
def backup_worker_killed_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.kill()
    strike.kills_worker = True
    strike.pause(0.1, 0.6)
    strike.stage.restart_worker()


@fault(weight=0.8, plays="backup")
def backup_worker_killed_twice(strike: Strike) -> None:
    backup_worker_killed(strike)
    strike.pause(0.5, 3.0)
    strike.stage.restart_worker()


@fault(weight=0.6, plays="backup")
def backup_worker_stopped(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.stage.worker.signal(signal.SIGSTOP)
    strike.pause(0.2, 4.0)
    strike.stage.worker.signal(signal.SIGCONT)


@fault(plays="backup")
def backup_hand_killed(strike: Strike) -> None:
    strike.wait_for_phase("preflight")
    for _ in range(strike.random.randint(1, 3)):
        strike.wait_at_random(1.5)
        until(lambda: strike.kill_hand() or strike.is_over(), 60, "no process came to the repository", pause=0.002)


@fault(weight=0.6, plays="backup")
def backup_hand_stopped(strike: Strike) -> None:
    """It says nothing any more, as in a kernel that waits for storage."""
    strike.wait_for_phase(*COPYING)
    strike.wait_at_random(1.0)
    pids = strike.stage.hand_pids()
    for pid in pids:
        send(pid, signal.SIGSTOP)
    strike.pause(0.5, 6.0)
    for pid in pids:
        send(pid, signal.SIGCONT)


@fault(plays="backup")
def backup_cancelled(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.cancel()


@fault(weight=0.6, plays="backup")
def backup_api_killed(strike: Strike) -> None:
    strike.wait_at_random(2.0)
    strike.stage.api.kill()
    strike.pause(0.0, 0.3)
    strike.stage.api.start()


# --- the guest and its host -----------------------------------------------------------------------


@fault(weight=0.8, plays="backup")
def backup_qemu_killed(strike: Strike) -> None:
    strike.hits_guest = True
    _wait_at_its_work(strike)
    send(strike.stage.qemu_pid(), signal.SIGKILL)
    until(lambda: not strike.stage.is_running(), 10, "QEMU lives on")
    strike.pause(0.0, 1.0)
    strike.stage.revive_guest()


@fault(weight=0.6, plays="backup")
def backup_guest_shut_down(strike: Strike) -> None:
    strike.hits_guest = True
    _wait_at_its_work(strike)
    strike.stage.guest.power_off()
    strike.pause(0.0, 2.0)
    strike.stage.revive_guest()


@fault(weight=0.6, plays="backup")
def backup_guest_reset(strike: Strike) -> None:
    strike.hits_guest = True
    _wait_at_its_work(strike)
    mark = strike.stage.guest.mark()
    strike.stage.guest.domain.reset(0)
    strike.stage.guest.wait_serial("^LAB ready", 60, since=mark)
    strike.stage.guest.wait_serial("^METER ", 60, since=mark)


def _agent_is_well(stage: Stage) -> None:
    stage.guest.wait_agent()
    stage.liar.needs_no_restart()


def _restart_a_jammed_agent(stage: Stage) -> None:
    stage.liar.restart_later(8.0)


@fault(weight=0.6, is_alone=True, prepare=_restart_a_jammed_agent, clean_up=_agent_is_well, plays="backup")
def backup_libvirtd_killed(strike: Strike) -> None:
    """Only where the daemon is the lab's own."""
    _wait_at_its_work(strike)
    begun = time.monotonic()
    if daemon.kill_own() is not None:
        strike.stage.guest.wait_agent()
        strike.obstacle_s = time.monotonic() - begun


@fault(weight=0.6, plays="backup")
def backup_libvirt_connection_cut(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.stage.relay.close()
    strike.obstacle_s = strike.pause(0.1, 2.0)
    strike.stage.relay.open()


def _put_in(stage: Stage) -> None:
    OverlayDisk(stage).put_in()


def _heal(stage: Stage) -> None:
    OverlayDisk(stage).heal()


def _take_out(stage: Stage) -> None:
    OverlayDisk(stage).take_out()


@fault(weight=0.8, prepare=_put_in, clean_up=_heal, put_back=_take_out, plays="backup")
def backup_overlay_space_low(strike: Strike) -> None:
    """The guest writes faster than its overlay has room for: the job must end before the guest would stand."""
    disk = OverlayDisk(strike.stage)
    if not disk.is_mounted:
        return
    with _storage(strike).slow(500_000):
        if not strike.wait_for_phase(*COPYING):
            return
        disk.fill(but_bytes=RESERVE_BYTES + ROOM_BYTES)
        with suppress(LabError):
            strike.stage.guest.exec("/bin/sh", "-c", _WRITES, timeout=60)
        until(strike.is_over, 120, "the job did not end")


# --- the repository -------------------------------------------------------------------------------


@fault(weight=1.5, plays="backup")
def backup_repository_hung(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).hung(), *HANGS_S)


@fault(weight=0.6, plays="backup")
def backup_repository_hung_then_worker_killed(strike: Strike) -> None:
    """Processes that wait in the kernel stay when their worker is killed: the next one must not stand in their way."""
    strike.wait_for_phase(*COPYING)
    strike.wait_at_random(1.0)
    with _storage(strike).hung():
        strike.pause(0.3, 2.0)
        strike.stage.worker.kill()
        strike.obstacle_s = _restart(strike)
        strike.pause(0.5, 4.0)


@fault(weight=0.8, plays="backup")
def backup_repository_frozen(strike: Strike) -> None:
    """Only its writes wait."""
    _meanwhile(strike, _storage(strike).frozen(), *HANGS_S)


@fault(plays="backup")
def backup_repository_full(strike: Strike) -> None:
    room = strike.random.choice([0, 0, 2_000_000, 12_000_000])
    _meanwhile(strike, _storage(strike).full(but_bytes=room), 0.5, 6.0)


@fault(weight=0.8, plays="backup")
def backup_repository_read_only(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).read_only(patience_s=1.0), 0.5, 5.0)


@fault(plays="backup")
def backup_repository_gone(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).gone(), 0.5, 8.0)


@fault(weight=0.8, plays="backup")
def backup_repository_slow(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).slow(strike.random.choice([500_000, 4_000_000])), 1.0, 8.0)


def _storage(strike: Strike) -> Storage:
    return repository_of(strike.stage).storage


def _meanwhile(strike: Strike, fault: AbstractContextManager[object], least_s: float, most_s: float) -> None:
    """From the begin of the job, or while it copies."""
    if strike.random.random() < 0.7:
        strike.wait_for_phase(*LATE_PHASES)
        strike.wait_at_random(2.0)
    else:
        strike.wait_at_random()
    with fault:
        strike.pause(least_s, most_s)


def _wait_at_its_work(strike: Strike) -> None:
    """At the begin of a phase that is drawn, and then for a part of what it may take."""
    phase = strike.random.choice(["preflight", "prepare", "freeze", "evaluate", "transfer", "transfer", "transfer", *LATE_PHASES])
    strike.wait_for_phase(phase)
    strike.wait_at_random(1.5 if phase == "transfer" else 0.15)
    strike.stage.note(f"struck in phase {phase}")


def _restart(strike: Strike) -> float:
    """For how long nobody but the guard could thaw."""
    begun = time.monotonic()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()
    return time.monotonic() - begun
