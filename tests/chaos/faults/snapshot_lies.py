"""libvirt took the snapshot and says something else, or QEMU took it and libvirt does not know."""

from tests.chaos.faults.strike import Strike, fault
from tests.chaos.lying_relay import Lie
from tests.chaos.stage import Stage, until
from tests.lab import monitor


def _tell_the_truth(stage: Stage) -> None:
    stage.relay.lie = None


@fault(clean_up=_tell_the_truth)
def snapshot_taken_but_error(strike: Strike) -> None:
    strike.stage.relay.lie = Lie.ERROR


@fault(clean_up=_tell_the_truth)
def snapshot_taken_but_connection_cut(strike: Strike) -> None:
    """The guard has a connection of its own, so this is in nobody's way."""
    strike.stage.relay.lie = Lie.CUT


def _hold_snapshots_back(stage: Stage) -> None:
    stage.relay.holds_snapshot.clear()
    stage.relay.snapshots_pass.clear()


def _let_snapshots_pass(stage: Stage) -> None:
    stage.relay.snapshots_pass.set()


@fault(weight=0.3, prepare=_hold_snapshots_back, clean_up=_let_snapshots_pass)
def snapshot_taken_by_qemu_alone(strike: Strike) -> None:
    """What a libvirtd that is killed between QEMU's answer and its own record leaves: it names the file below ever after."""
    stage = strike.stage
    until(lambda: stage.relay.holds_snapshot.is_set() or strike.is_over(), 30, "the job asked for no snapshot")
    if not stage.relay.holds_snapshot.is_set():
        return
    chain = stage.chain_files()
    (overlay,) = {file for folder in stage.overlay_folders for file in folder.glob("*.qcow2")} - set(chain)
    monitor.switch(stage.guest, chain[0], overlay)
    # The client's end is closed, so the relay does not pass the call on.
    stage.relay.close()
    stage.relay.snapshots_pass.set()
    stage.relay.open()
