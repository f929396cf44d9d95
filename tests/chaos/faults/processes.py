"""Faults of Stillpoint's own processes: worker, guard, keeper, API."""

import signal
import time

from tests.chaos.faults.strike import Strike, fault, send
from tests.chaos.stage import PATIENCE_S, until
from tests.service_process import FINAL


@fault(weight=3)
def nothing(strike: Strike) -> None:
    """The undisturbed round, which the others are held against."""


@fault(weight=10)
def worker_killed_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.kill()
    strike.kills_worker = True
    strike.pause(0.1, 0.6)
    strike.stage.restart_worker()


@fault()
def worker_killed_anywhere(strike: Strike) -> None:
    strike.wait_at_random()
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


@fault()
def worker_killed_twice(strike: Strike) -> None:
    worker_killed_in_window(strike)
    strike.pause(0.5, 1.5)
    strike.stage.restart_worker()


@fault(weight=0.5)
def worker_killed_for_long(strike: Strike) -> None:
    """Longer than any deadline: nothing but the guard can have thawed in time."""
    strike.wait_for_window()
    strike.stage.worker.kill()
    strike.kills_worker = True
    strike.pause(4.0, 8.0)
    strike.stage.restart_worker()


@fault()
def worker_stopped_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.signal(signal.SIGSTOP)
    strike.pause(0.2, 2.5)
    strike.stage.worker.signal(signal.SIGCONT)


@fault()
def worker_stopped_then_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.signal(signal.SIGSTOP)
    strike.pause(0.2, 1.5)
    strike.stage.restart_worker()


@fault()
def guard_killed_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard()


@fault()
def guard_killed_before(strike: Strike) -> None:
    until(lambda: strike.kill_guard() or strike.stage.api.job(strike.job_id)["state"] in FINAL, PATIENCE_S, "no guard came up", pause=0.002)


@fault()
def guard_stopped_in_window(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard(signal.SIGSTOP)


@fault()
def keeper_killed(strike: Strike) -> None:
    strike.wait_at_random()
    pid = strike.stage.keeper_pid()
    if pid is not None:
        send(pid, signal.SIGKILL)


@fault()
def guard_then_worker_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard()
    strike.pause(0.0, 0.02)
    strike.stage.worker.kill()
    strike.obstacle_s = _restart(strike)


@fault()
def worker_then_guard_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.stage.worker.kill()
    strike.kill_guard()
    strike.obstacle_s = _restart(strike)


@fault()
def guard_stopped_and_worker_killed(strike: Strike) -> None:
    strike.wait_for_window()
    strike.kill_guard(signal.SIGSTOP)
    strike.stage.worker.kill()
    strike.obstacle_s = _restart(strike)


@fault()
def api_killed(strike: Strike) -> None:
    strike.wait_at_random()
    strike.stage.api.kill()
    strike.pause(0.0, 0.3)
    strike.stage.api.start()


def _restart(strike: Strike) -> float:
    """Nobody is left to thaw until the worker is started again: how long that was."""
    begun = time.monotonic()
    strike.pause(0.0, 0.4)
    strike.stage.restart_worker()
    until(lambda: strike.stage.keeper_pid() is not None, PATIENCE_S, "the worker did not come back")
    return time.monotonic() - begun + 1.0
