"""Taking a point back: its overlays are merged into the files below, so that the disks are as if it had not been taken."""

import time
from collections.abc import Sequence

from service.errors import OverlayPreparationFailed, StillpointError
from service.hypervisor.guest import Guest
from service.jobs import overlays
from service.jobs.overlays import Overlay

BUDGET_S = 600.0
POLL_S = 0.1


class MergeTimedOut(StillpointError):
    code = "merge_timed_out"
    title = "Merging an overlay back took too long"
    detail_template = "{target} was not merged within {budget_s:.0f} s"
    remedy_template = "The disk goes on with its overlay. Try again when the guest writes less."


def merge_back(guest: Guest, taken: Sequence[Overlay], budget_s: float = BUDGET_S) -> None:
    """One disk after the other. Raises StillpointError; a disk that was not merged goes on with its overlay, and no file is lost."""
    for overlay in taken:
        _merge(guest, overlay, budget_s)


def _merge(guest: Guest, overlay: Overlay, budget_s: float) -> None:
    guest.start_merge(overlay.target)
    deadline = time.monotonic() + budget_s
    while not guest.merge_is_ready(overlay.target):
        if time.monotonic() > deadline:
            guest.stop_merge(overlay.target)
            raise MergeTimedOut(target=overlay.target, budget_s=budget_s)
        time.sleep(POLL_S)
    guest.pivot(overlay.target)
    if guest.sources().get(overlay.target) != overlay.base:
        raise OverlayPreparationFailed(path=overlay.base, reason="libvirt pivoted, and the disk is on another file")
    overlays.remove([overlay])
