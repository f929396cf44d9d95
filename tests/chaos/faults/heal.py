"""Faults of a verify that heals."""

from tests.chaos.faults import at_work
from tests.chaos.faults.strike import Strike

PHASES = {"checksums": 1.0, "heal": 1.0}
"""Seconds that each phase lasts here, more or less: what is healed is read again."""


def _wait_at_its_work(strike: Strike) -> None:
    strike.wait_in_a_phase(PHASES)


at_work.enter("heal", _wait_at_its_work, worker_killed=2.0, hand_killed=1.5)
