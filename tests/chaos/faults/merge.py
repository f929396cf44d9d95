"""Faults of a merge: its processes, its guest, the repository that does not answer, and a backup that builds on a point meanwhile."""

import signal
import time
from contextlib import AbstractContextManager

from tests.chaos.backups.repository import repository_of
from tests.chaos.faults.strike import LONG_JOB_S, Strike, fault, send
from tests.chaos.stage import PATIENCE_S, until
from tests.lab.bad_storage import Storage

PHASES = {"plan": 0.2, "transfer": 2.0, "seal": 0.3, "merge": 0.1, "remove": 0.3}
"""Seconds that each phase lasts here, more or less."""


@fault(weight=0.4, plays="merge")
def merge_nothing(strike: Strike) -> None:
    """The undisturbed round."""


@fault(weight=2.0, plays="merge")
def merge_worker_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


@fault(weight=0.8, plays="merge")
def merge_worker_killed_twice(strike: Strike) -> None:
    merge_worker_killed(strike)
    strike.pause(0.2, 3.0)
    strike.stage.restart_worker()


@fault(weight=1.5, plays="merge")
def merge_hand_killed(strike: Strike) -> None:
    for _ in range(strike.random.randint(1, 2)):
        _wait_at_its_work(strike)
        until(lambda: strike.kill_hand() or strike.is_over(), PATIENCE_S, "no process came to the repository", pause=0.002)


@fault(weight=0.6, plays="merge")
def merge_qemu_killed(strike: Strike) -> None:
    strike.hits_guest = True
    _wait_at_its_work(strike)
    send(strike.stage.qemu_pid(), signal.SIGKILL)
    until(lambda: not strike.stage.is_running(), 10, "QEMU lives on")
    strike.pause(0.0, 0.5)
    strike.stage.revive_guest()


@fault(weight=0.6, plays="merge")
def merge_cancelled(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.cancel()


@fault(weight=0.8, plays="merge")
def merge_repository_hung(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).hung(), 1.0, 8.0)


@fault(weight=0.8, plays="merge")
def merge_repository_gone(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).gone(), 0.5, 6.0)


@fault(weight=0.6, plays="merge")
def merge_repository_read_only(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).read_only(patience_s=1.0), 0.5, 4.0)


@fault(weight=0.8, plays="merge")
def merge_beside_a_backup_and_worker_killed(strike: Strike) -> None:
    """Of which nobody knows yet on which point it builds."""
    strike.wait_at_random(1.0)
    job_id = str(strike.stage.api.create(strike.stage.guest.name, "backup", repository=repository_of(strike.stage).id))
    strike.wait_at_random(3.0)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()
    strike.stage.api.wait(job_id, LONG_JOB_S)


def _storage(strike: Strike) -> Storage:
    return repository_of(strike.stage).storage


def _meanwhile(strike: Strike, trouble: AbstractContextManager[object], least_s: float, most_s: float) -> None:
    _wait_at_its_work(strike)
    with trouble:
        strike.pause(least_s, most_s)


def _wait_at_its_work(strike: Strike) -> None:
    phase = strike.random.choice(list(PHASES))
    strike.wait_for_phase(phase)
    time.sleep(strike.random.uniform(0.0, PHASES[phase]))
    strike.stage.note(f"struck in phase {phase}")
