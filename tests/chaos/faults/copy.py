"""Faults of a job that sends points to a copy, or fetches them from there."""

from tests.chaos.faults import at_work
from tests.chaos.faults.strike import Strike

AT_WORK_S = 2.5
"""Seconds that the way of some points lasts here."""


def _wait_at_its_work(strike: Strike) -> None:
    strike.wait_for_phase("transfer", "write")
    strike.wait_at_random(AT_WORK_S)


at_work.enter("copy", _wait_at_its_work, worker_killed=2.0, hand_killed=1.5)
