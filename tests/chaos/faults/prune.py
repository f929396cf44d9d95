"""Faults of a prune: its processes, the repository that does not answer, and a backup that builds on a point meanwhile."""

from contextlib import AbstractContextManager

from tests.chaos.backups.repository import repository_of
from tests.chaos.faults.strike import LONG_JOB_S, Strike, fault
from tests.chaos.stage import PATIENCE_S, until
from tests.lab.bad_storage import Storage

AT_WORK_S = 0.4
"""Seconds that the removal of some points lasts here."""


@fault(weight=0.4, plays="prune")
def prune_nothing(strike: Strike) -> None:
    """The undisturbed round."""


@fault(weight=1.5, plays="prune")
def prune_worker_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


@fault(weight=0.6, plays="prune")
def prune_worker_killed_twice(strike: Strike) -> None:
    prune_worker_killed(strike)
    strike.pause(0.2, 2.0)
    strike.stage.restart_worker()


@fault(plays="prune")
def prune_hand_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    until(lambda: strike.kill_hand() or strike.is_over(), PATIENCE_S, "no process came to the repository", pause=0.002)


@fault(weight=0.5, plays="prune")
def prune_cancelled(strike: Strike) -> None:
    strike.wait_at_random(1.0)
    strike.cancel()


@fault(weight=0.8, plays="prune")
def prune_repository_hung(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).hung(), 1.0, 8.0)


@fault(weight=0.8, plays="prune")
def prune_repository_gone(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).gone(), 0.5, 6.0)


@fault(weight=0.6, plays="prune")
def prune_repository_read_only(strike: Strike) -> None:
    _meanwhile(strike, _storage(strike).read_only(patience_s=1.0), 0.5, 4.0)


@fault(weight=0.8, plays="prune")
def prune_beside_a_backup(strike: Strike) -> None:
    """Of which nobody knows yet on which point it builds."""
    job_id = _backup(strike)
    strike.stage.api.wait(job_id, LONG_JOB_S)


@fault(weight=0.8, plays="prune")
def prune_beside_a_backup_and_worker_killed(strike: Strike) -> None:
    job_id = _backup(strike)
    strike.wait_at_random(1.5)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()
    strike.stage.api.wait(job_id, LONG_JOB_S)


def _backup(strike: Strike) -> str:
    strike.wait_at_random(AT_WORK_S)
    return str(strike.stage.api.create(strike.stage.guest.name, "backup", repository=repository_of(strike.stage).id))


def _storage(strike: Strike) -> Storage:
    return repository_of(strike.stage).storage


def _meanwhile(strike: Strike, trouble: AbstractContextManager[object], least_s: float, most_s: float) -> None:
    _wait_at_its_work(strike)
    with trouble:
        strike.pause(least_s, most_s)


def _wait_at_its_work(strike: Strike) -> None:
    strike.wait_for_phase("remove")
    strike.wait_at_random(AT_WORK_S)
