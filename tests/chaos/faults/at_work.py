"""The faults that strike every job which works in a repository: its processes, its storage, a guest and a backup beside it.

A play says only how to wait until its job is at its work, and enters them all under its own name: `prune_worker_killed`.
"""

import signal
from collections.abc import Callable
from functools import partial

from tests.chaos.backups.repository import repository_of
from tests.chaos.faults.strike import FAULTS, LONG_JOB_S, Fault, Plays, Strike, nothing, send
from tests.chaos.stage import PATIENCE_S, until
from tests.lab.bad_storage import Storage

Wait = Callable[[Strike], None]
SHARE = 0.45
"""There are four such plays, and their rounds take longer than others: so each comes less often than a play of its own would."""


def enter(plays: Plays, wait: Wait, **weights: float) -> None:
    """`weights`: of those that come more or less often in this play than in others."""
    for name, (usual, strike) in _STRIKES.items():
        weight = weights.get(name, usual) * SHARE
        FAULTS[f"{plays}_{name}"] = Fault(partial(strike, wait), weight, False, nothing, nothing, nothing, plays)


def _undisturbed(_wait: Wait, _strike: Strike) -> None:
    """The round that the others are held against."""


def _kill_worker(wait: Wait, strike: Strike) -> None:
    wait(strike)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


def _kill_worker_twice(wait: Wait, strike: Strike) -> None:
    _kill_worker(wait, strike)
    strike.pause(0.2, 3.0)
    strike.stage.restart_worker()


def _kill_hand(wait: Wait, strike: Strike) -> None:
    """Once, or twice: the step is done again by a new process after the first time."""
    for _ in range(strike.random.randint(1, 2)):
        wait(strike)
        until(lambda: strike.kill_hand() or strike.is_over(), PATIENCE_S, "no process came to the repository", pause=0.002)


def _kill_qemu(wait: Wait, strike: Strike) -> None:
    strike.hits_guest = True
    wait(strike)
    send(strike.stage.qemu_pid(), signal.SIGKILL)
    until(lambda: not strike.stage.is_running(), 10, "QEMU lives on")
    strike.pause(0.0, 0.5)
    strike.stage.revive_guest()


def _cancel(wait: Wait, strike: Strike) -> None:
    """At its work it may be too late for that, and not before."""
    if strike.random.random() < 0.5:
        strike.wait_at_random(1.0)
    else:
        wait(strike)
    strike.cancel()


def _hang_storage(wait: Wait, strike: Strike) -> None:
    wait(strike)
    with _storage(strike).hung():
        strike.pause(1.0, 8.0)


def _take_storage_away(wait: Wait, strike: Strike) -> None:
    wait(strike)
    with _storage(strike).gone():
        strike.pause(0.5, 6.0)


def _forbid_writes(wait: Wait, strike: Strike) -> None:
    wait(strike)
    with _storage(strike).read_only(patience_s=1.0):
        strike.pause(0.5, 4.0)


def _back_up_beside(_wait: Wait, strike: Strike) -> None:
    """Of the backup nobody knows yet on which point it builds."""
    strike.stage.api.wait(_backup(strike), LONG_JOB_S)


def _back_up_beside_and_kill_worker(_wait: Wait, strike: Strike) -> None:
    job_id = _backup(strike)
    strike.wait_at_random(2.5)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()
    strike.stage.api.wait(job_id, LONG_JOB_S)


def _backup(strike: Strike) -> str:
    strike.wait_at_random(0.7)
    return str(strike.stage.api.create(strike.stage.guest.name, "backup", repository=repository_of(strike.stage).id))


def _storage(strike: Strike) -> Storage:
    return repository_of(strike.stage).storage


_STRIKES: dict[str, tuple[float, Callable[[Wait, Strike], None]]] = {
    "nothing": (0.4, _undisturbed),
    "worker_killed": (1.5, _kill_worker),
    "worker_killed_twice": (0.7, _kill_worker_twice),
    "hand_killed": (1.2, _kill_hand),
    "qemu_killed": (0.5, _kill_qemu),
    "cancelled": (0.5, _cancel),
    "repository_hung": (0.8, _hang_storage),
    "repository_gone": (0.8, _take_storage_away),
    "repository_read_only": (0.6, _forbid_writes),
    "beside_a_backup": (0.5, _back_up_beside),
    "beside_a_backup_and_worker_killed": (0.8, _back_up_beside_and_kill_worker),
}
"""How often each comes, against 1."""
