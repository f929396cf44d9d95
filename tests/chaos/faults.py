"""The faults, by name. Each one strikes while its job runs, heals what must be healed, and says how long it stood in the way of a thaw."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import libvirt

from tests.chaos.stage import Stage, until
from tests.service_process import FINAL


@dataclass
class Strike:
    """`obstacle_s`: for how long no process of Stillpoint could have thawed, so that the deadline is later by that much.

    `hits_guest`: the guest itself was stopped or started anew, so what its meter says of this round is no judge.
    """

    stage: Stage
    job_id: str
    random: random.Random
    obstacle_s: float = 0.0
    hits_guest: bool = False
    #: The worker was killed when the window could have been open.
    kills_worker: bool = False

    def wait_for_window(self) -> None:
        """The freeze is sent next; then a random part of what a window usually takes."""
        until(lambda: self._phase() in ("freeze", None), 20, "the job did not come to its freeze", pause=0.002)
        time.sleep(self.random.uniform(0.0, 0.09))

    def wait_at_random(self) -> None:
        time.sleep(self.random.uniform(0.0, 0.45))

    def pause(self, least: float, most: float) -> float:
        seconds = self.random.uniform(least, most)
        time.sleep(seconds)
        return seconds

    def kill_guard(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        pid = self.stage.guard_pid(self.job_id)
        if pid is not None:
            _signal(pid, number)
        return pid

    def _phase(self) -> str | None:
        """None: the job is over."""
        job = self.stage.api.job(self.job_id)
        return None if job["state"] in FINAL else str(job["phase"])


def nothing(strike: Strike) -> None:
    """The undisturbed round, which the others are held against."""


def worker_killed_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.kill()
    strike.kills_worker = True
    strike.pause(0.1, 0.6)
    strike.stage.restart_worker()


def worker_killed_anywhere(strike: Strike) -> None:
    strike.wait_at_random()
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


def worker_killed_twice(strike: Strike) -> None:
    worker_killed_in_window(strike)
    strike.pause(0.5, 1.5)
    strike.stage.restart_worker()


def worker_stopped_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.signal(signal.SIGSTOP)
    strike.pause(0.2, 2.5)
    strike.stage.worker.signal(signal.SIGCONT)


def worker_stopped_then_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.signal(signal.SIGSTOP)
    strike.pause(0.2, 1.5)
    strike.stage.restart_worker()


def guard_killed_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard()


def guard_killed_before(strike: Strike) -> None:
    until(lambda: strike.kill_guard() or strike.stage.api.job(strike.job_id)["state"] in FINAL, 20, "no guard came up", pause=0.002)


def guard_stopped_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard(signal.SIGSTOP)


def keeper_killed(strike: Strike) -> None:
    strike.wait_at_random()
    pid = strike.stage.keeper_pid()
    if pid is not None:
        _signal(pid, signal.SIGKILL)


def guard_then_worker_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard()
    strike.pause(0.0, 0.02)
    strike.stage.worker.kill()
    strike.obstacle_s = _restart(strike)


def worker_then_guard_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.kill()
    strike.kill_guard()
    strike.obstacle_s = _restart(strike)


def guard_stopped_and_worker_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard(signal.SIGSTOP)
    strike.stage.worker.kill()
    strike.obstacle_s = _restart(strike)


def api_killed(strike: Strike) -> None:
    strike.wait_at_random()
    strike.stage.api.kill()
    strike.pause(0.0, 0.3)
    strike.stage.api.start()


def libvirt_connection_cut(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.relay.close()
    strike.obstacle_s = strike.pause(0.1, 1.5)
    strike.stage.relay.open()


def libvirt_slow(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.relay.delay_s = strike.random.uniform(0.05, 0.6)
    strike.obstacle_s = strike.pause(0.5, 1.5) + strike.stage.relay.delay_s
    strike.stage.relay.delay_s = 0.0


def qemu_killed(strike: Strike) -> None:
    strike.hits_guest = True
    strike.wait_for_window()
    _signal(strike.stage.qemu_pid(), signal.SIGKILL)
    until(lambda: not strike.stage.is_running(), 10, "QEMU lives on")
    strike.pause(0.0, 0.5)
    strike.stage.revive_guest()


def guest_destroyed(strike: Strike) -> None:
    strike.hits_guest = True
    strike.wait_for_window()
    strike.stage.guest.power_off()
    strike.stage.revive_guest()


def guest_reset(strike: Strike) -> None:
    strike.hits_guest = True
    strike.wait_for_window()
    mark = strike.stage.guest.mark()
    strike.stage.guest.domain.reset(0)
    strike.stage.guest.wait_serial("^LAB ready", 60, since=mark)
    strike.stage.guest.wait_serial("^METER ", 60, since=mark)


def guest_paused(strike: Strike) -> None:
    strike.wait_for_window()
    domain = strike.stage.guest.domain
    # A snapshot that is under way pauses and resumes the guest itself.
    with suppress(libvirt.libvirtError):
        domain.suspend()
    strike.obstacle_s = strike.pause(0.2, 1.5)
    with suppress(libvirt.libvirtError):
        domain.resume()


def agent_killed(strike: Strike) -> None:
    _in_guest_soon(strike, "kill -9 $(pidof qemu-ga)")
    strike.obstacle_s = 0.5


def agent_stopped(strike: Strike) -> None:
    seconds = strike.random.uniform(0.3, 1.5)
    _in_guest_soon(strike, f"agent=$(pidof qemu-ga); kill -STOP $agent; sleep {seconds:.2f}; kill -CONT $agent")
    strike.obstacle_s = seconds


def sqlite_locked(strike: Strike) -> None:
    strike.wait_at_random()
    database = sqlite3.connect(strike.stage.state_dir / "stillpoint.db", timeout=5, isolation_level=None)
    with suppress(sqlite3.OperationalError):
        database.execute("BEGIN EXCLUSIVE")
        strike.pause(0.2, 2.0)
        database.execute("ROLLBACK")
    database.close()


def state_disk_full(strike: Strike) -> None:
    """The disk with the database, the log and the guards' reports."""
    if not strike.stage.has_small_disk:
        return
    strike.wait_at_random()
    ballast = strike.stage.state_dir / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
    strike.pause(0.2, 2.0)
    ballast.unlink()


def _restart(strike: Strike) -> float:
    """Nobody is left to thaw until the worker is started again: how long that was."""
    begun = time.monotonic()
    strike.pause(0.0, 0.4)
    strike.stage.restart_worker()
    until(lambda: strike.stage.keeper_pid() is not None, 20, "the worker did not come back")
    return time.monotonic() - begun + 1.0


def _in_guest_soon(strike: Strike, script: str) -> None:
    """Before the job is at its window: the agent takes no programs while the guest is frozen."""
    delay = strike.random.uniform(0.05, 0.5)
    with suppress(libvirt.libvirtError):
        arguments = {"path": "/bin/sh", "arg": ["-c", f"sleep {delay:.2f}; {script}"]}
        strike.stage.guest.agent({"execute": "guest-exec", "arguments": arguments})
    time.sleep(delay)


def _signal(pid: int, number: signal.Signals) -> None:
    # It may have ended by itself in this moment.
    with suppress(ProcessLookupError):
        os.kill(pid, number)


FAULTS: dict[str, Callable[[Strike], None]] = {
    fault.__name__: fault
    for fault in (
        nothing,
        worker_killed_in_window,
        worker_killed_anywhere,
        worker_killed_twice,
        worker_stopped_in_window,
        worker_stopped_then_killed,
        guard_killed_in_window,
        guard_killed_before,
        guard_stopped_in_window,
        keeper_killed,
        guard_then_worker_killed,
        worker_then_guard_killed,
        guard_stopped_and_worker_killed,
        api_killed,
        libvirt_connection_cut,
        libvirt_slow,
        qemu_killed,
        guest_destroyed,
        guest_reset,
        guest_paused,
        agent_killed,
        agent_stopped,
        sqlite_locked,
        state_disk_full,
    )
}
WEIGHTS = {"nothing": 3, "worker_killed_in_window": 6, "qemu_killed": 0.5, "guest_destroyed": 0.5, "guest_reset": 0.5}
"""How often each comes, against 1: those that boot the guest anew take long."""
