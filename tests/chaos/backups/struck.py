"""A job of a round, with the fault of the round in the middle of it."""

import random
from collections.abc import Iterator
from typing import Any

from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.asking import ask
from tests.chaos.backups.backing_up import JOB_TIMEOUT_S, allowed, told
from tests.chaos.backups.repository import LaneRepository
from tests.chaos.faults import FAULTS
from tests.chaos.faults.strike import Strike
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage


def struck(stage: Stage, repository: LaneRepository, chance: random.Random, outcome: Outcome, body: dict[str, Any]) -> "Struck":
    """When the job has ended, and the storage and the worker are well again."""
    fault = FAULTS[outcome.fault]
    stage.note(f"asked: {body}")
    stage.wait_worker()
    mark = stage.guest.mark()
    fault.prepare(stage)
    strike = Strike(stage, ask(stage, body), chance)
    outcome.job = strike.job_id
    try:
        fault.strike(strike)
        job = stage.api.wait(strike.job_id, JOB_TIMEOUT_S)
    finally:
        fault.clean_up(stage)
        repository.storage.heal()
    outcome.ended = told(job)
    repository.wait_ready()
    return Struck(stage, strike, job, outcome.fault, mark)


class Struck:
    def __init__(self, stage: Stage, strike: Strike, job: dict[str, Any], fault: str, mark: int) -> None:
        self.job, self.strike, self.fault = job, strike, fault
        self._stage, self._mark = stage, mark

    def breaches(self) -> Iterator[Breach]:
        """Of any job that works in a repository and never at a guest."""
        yield from allowed(self.job, self.fault, self.strike)
        yield from self.guest_hurt()

    def guest_hurt(self) -> Iterator[Breach]:
        if not self.strike.hits_guest:
            yield from of_backups.guest_hurt(self._stage.guest.stalls(self._mark), self.job, 0, self.strike.obstacle_s)
