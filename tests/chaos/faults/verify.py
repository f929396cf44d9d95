"""Faults of a verify: its processes, the repository that does not answer, and a point that is really damaged."""

from tests.chaos.backups.repository import repository_of
from tests.chaos.faults.strike import Strike, fault
from tests.chaos.stage import PATIENCE_S, Stage, until
from tests.lab.bad_storage import Storage


@fault(weight=0.4, plays="verify")
def verify_nothing(strike: Strike) -> None:
    """The undisturbed round."""


@fault(weight=0.8, plays="verify")
def verify_worker_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


@fault(weight=0.6, plays="verify")
def verify_hand_killed(strike: Strike) -> None:
    _wait_at_its_work(strike)
    until(lambda: strike.kill_hand() or strike.is_over(), PATIENCE_S, "no process came to the repository", pause=0.002)


@fault(weight=0.4, plays="verify")
def verify_cancelled(strike: Strike) -> None:
    _wait_at_its_work(strike)
    strike.cancel()


@fault(weight=0.8, plays="verify")
def verify_repository_hung(strike: Strike) -> None:
    _wait_at_its_work(strike)
    with _storage(strike.stage).hung():
        strike.pause(1.0, 8.0)


@fault(weight=0.8, plays="verify")
def verify_repository_gone(strike: Strike) -> None:
    """A point that cannot be read is not a damaged one."""
    _wait_at_its_work(strike)
    with _storage(strike.stage).gone():
        strike.pause(0.5, 5.0)


@fault(weight=0.6, plays="verify")
def verify_repository_gone_before(strike: Strike) -> None:
    with _storage(strike.stage).gone():
        strike.pause(1.0, 5.0)


def _flip(stage: Stage) -> None:
    repository_of(stage).flip_byte(stage.chance)


def _truncate(stage: Stage) -> None:
    repository_of(stage).truncate(stage.chance)


@fault(prepare=_flip, plays="verify")
def verify_byte_flipped(strike: Strike) -> None:
    """One bit, in any file of the point."""


@fault(weight=0.6, prepare=_truncate, plays="verify")
def verify_file_truncated(strike: Strike) -> None:
    """Any file of the point, anywhere."""


@fault(weight=0.4, prepare=_flip, plays="verify")
def verify_byte_flipped_and_worker_killed(strike: Strike) -> None:
    verify_worker_killed(strike)


def _storage(stage: Stage) -> Storage:
    return repository_of(stage).storage


def _wait_at_its_work(strike: Strike) -> None:
    strike.wait_for_phase(strike.random.choice(["checksums", "checksums", "checksums", "structure", "filesystem"]))
    strike.wait_at_random(1.5)
