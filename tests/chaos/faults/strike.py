"""What a fault gets in its hands, and the list that it enters itself into."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.chaos.pauses import Pause
from tests.chaos.stage import PATIENCE_S, Stage, until
from tests.service_process import FINAL

LONG_JOB_S = 240.0
"""Until a job that copies has ended, on a machine with much to do."""
Plays = Literal["snapshot", "backup", "restore", "verify", "prune", "merge", "heal", "copy"]


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
    #: The job may end as cancelled.
    asks_to_cancel: bool = False
    #: In which the guest's own clock stood, and with it its meter.
    pauses: list[Pause] = field(default_factory=list)

    def wait_for_window(self) -> None:
        """The freeze is sent next; then a random part of what a window usually takes."""
        self.wait_for_freeze()
        time.sleep(self.random.uniform(0.0, 0.09))

    def wait_for_freeze(self) -> None:
        until(lambda: self._phase() in ("freeze", None), PATIENCE_S, "the job did not come to its freeze", pause=0.002)

    def wait_at_random(self, most_s: float = 0.45) -> None:
        time.sleep(self.random.uniform(0.0, most_s))

    def wait_for_phase(self, *names: str) -> bool:
        """Until the job is in one of the phases, or past one of them. False: the job is over, and was never seen there."""
        with self.stage.api.polled(self.job_id) as read:
            came = until(lambda: self._came_to(read(), names), LONG_JOB_S, f"the job did not come to {names}", pause=0.002)
        return came == "there"

    @staticmethod
    def _came_to(job: dict[str, Any], names: tuple[str, ...]) -> str | None:
        passed = {job["phase"], *(phase["name"] for phase in job["phases"])}
        if passed & set(names):
            return "there"
        return "over" if job["state"] in FINAL else None

    def wait_in_a_phase(self, phases: Mapping[str, float]) -> None:
        """Somewhere in one of these phases. By name, the seconds that it lasts, more or less."""
        phase = self.random.choice(list(phases))
        self.wait_for_phase(phase)
        self.wait_at_random(phases[phase])
        self.stage.note(f"struck in phase {phase}")

    def kill_hand(self) -> bool:
        """False: there is none at this moment."""
        pids = self.stage.hand_pids()
        for pid in pids:
            send(pid, signal.SIGKILL)
        return bool(pids)

    def cancel(self) -> None:
        self.asks_to_cancel = True
        self.stage.api.request("POST", f"/api/v1/jobs/{self.job_id}/cancel")

    def pause(self, least: float, most: float) -> float:
        seconds = self.random.uniform(least, most)
        time.sleep(seconds)
        return seconds

    def kill_guard(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        pid = self.stage.guard_pid(self.job_id)
        if pid is not None:
            send(pid, number)
        return pid

    def is_over(self) -> bool:
        return self._phase() is None

    def _phase(self) -> str | None:
        """None: the job is over."""
        job = self.stage.api.job(self.job_id)
        return None if job["state"] in FINAL else str(job["phase"])


def nothing(_stage: Stage) -> None:
    """Most faults need none."""


@dataclass(frozen=True)
class Fault:
    """`weight` is how often it comes, against 1. `is_alone`: it breaks what all lanes share, so no other round is played meanwhile.

    `plays`: the job of its round.

    `prepare` comes before the job is created, `clean_up` after the job ended, `put_back` when all of the round has been judged.
    """

    strike: Callable[[Strike], None]
    weight: float
    is_alone: bool
    prepare: Callable[[Stage], None]
    clean_up: Callable[[Stage], None]
    put_back: Callable[[Stage], None]
    plays: Plays = "snapshot"


FAULTS: dict[str, Fault] = {}
"""By name; the modules of this package fill it in the order in which they are imported."""


def fault(
    *,
    weight: float = 1.0,
    is_alone: bool = False,
    prepare: Callable[[Stage], None] = nothing,
    clean_up: Callable[[Stage], None] = nothing,
    put_back: Callable[[Stage], None] = nothing,
    plays: Plays = "snapshot",
) -> Callable[[Callable[[Strike], None]], Callable[[Strike], None]]:
    def enter(strike: Callable[[Strike], None]) -> Callable[[Strike], None]:
        FAULTS[strike.__name__] = Fault(strike, weight, is_alone, prepare, clean_up, put_back, plays)
        return strike

    return enter


def send(pid: int, number: signal.Signals) -> None:
    # It may have ended by itself in this moment.
    with suppress(ProcessLookupError):
        os.kill(pid, number)
