"""Faults of a merge."""

from tests.chaos.faults import at_work
from tests.chaos.faults.strike import Strike

PHASES = {"plan": 0.2, "transfer": 2.0, "seal": 0.3, "merge": 0.1, "remove": 0.3}
"""Seconds that each phase lasts here, more or less."""


def _wait_at_its_work(strike: Strike) -> None:
    strike.wait_in_a_phase(PHASES)


at_work.enter("merge", _wait_at_its_work, worker_killed=2.0, hand_killed=1.5)
