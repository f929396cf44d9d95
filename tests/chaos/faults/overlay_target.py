"""Faults of the disk that overlays are made on: full, read-only, gone."""

import time

from tests.chaos.faults.strike import Strike, fault
from tests.chaos.overlay_disk import OverlayDisk
from tests.chaos.stage import Stage


def _put_in(stage: Stage) -> None:
    OverlayDisk(stage).put_in()


def _heal(stage: Stage) -> None:
    OverlayDisk(stage).heal()


def _take_out(stage: Stage) -> None:
    OverlayDisk(stage).take_out()


@fault(weight=0.4, prepare=_put_in, clean_up=_heal, put_back=_take_out)
def overlay_target_full(strike: Strike) -> None:
    """The snapshot fails, or QEMU stops a guest whose write has no room; its clock, by which the meter counts, stands then too."""
    disk = OverlayDisk(strike.stage)
    if not disk.is_mounted:
        return
    strike.wait_for_window()
    disk.fill()
    strike.pause(0.2, 2.0)
    disk.heal()


@fault(weight=0.4, prepare=_put_in, clean_up=_heal, put_back=_take_out)
def overlay_target_read_only(strike: Strike) -> None:
    """Before the window, or inside it and before QEMU opens the overlay: later the kernel refuses."""
    disk = OverlayDisk(strike.stage)
    if not disk.is_mounted:
        return
    if strike.random.random() < 0.7:
        strike.wait_for_freeze()
        strike.pause(0.0, 0.03)
    else:
        strike.wait_at_random()
    disk.make_read_only()
    strike.pause(0.2, 2.0)
    disk.make_writable()


@fault(weight=0.4, prepare=_put_in, clean_up=_heal, put_back=_take_out)
def overlay_target_hangs(strike: Strike) -> None:
    """As long as it hangs, so does every write of a guest whose disk is there: no process can change that."""
    disk = OverlayDisk(strike.stage)
    if not disk.is_mounted:
        return
    if strike.random.random() < 0.7:
        strike.wait_for_window()
    else:
        strike.wait_at_random()
    begun = disk.hang()
    strike.pause(0.2, 2.5)
    disk.unhang()
    strike.obstacle_s = time.monotonic() - begun
