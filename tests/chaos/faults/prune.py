"""Faults of a prune."""

from tests.chaos.faults import at_work
from tests.chaos.faults.strike import Strike

AT_WORK_S = 0.4
"""Seconds that the removal of some points lasts here."""


def _wait_at_its_work(strike: Strike) -> None:
    strike.wait_for_phase("remove")
    strike.wait_at_random(AT_WORK_S)


at_work.enter("prune", _wait_at_its_work)
