"""libvirt took the snapshot and says something else."""

from tests.chaos.faults.strike import Strike, fault
from tests.chaos.lying_relay import Lie
from tests.chaos.stage import Stage


def _tell_the_truth(stage: Stage) -> None:
    stage.relay.lie = None


@fault(clean_up=_tell_the_truth)
def snapshot_taken_but_error(strike: Strike) -> None:
    strike.stage.relay.lie = Lie.ERROR


@fault(clean_up=_tell_the_truth)
def snapshot_taken_but_connection_cut(strike: Strike) -> None:
    """The guard has a connection of its own, so this is in nobody's way."""
    strike.stage.relay.lie = Lie.CUT
