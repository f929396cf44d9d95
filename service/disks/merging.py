"""Discards a point: its overlays are merged into the files below. The disks are then as if the point had not been taken.

The first merge writes to the files below. From then on these files are not a point in time any more, even if the merge never ends.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.disks import merge_space, overlays
from service.disks.two_views import DiskPositions, error_of
from service.errors import JobCancelled, LibvirtCallFailed, LibvirtUnavailable, OverlaysLeft, StillpointError
from service.hypervisor.guest import Guest
from service.model.intent import Overlay

BUDGET_S = 600.0
"""Seconds without progress of the merge of one disk. After that the merge is stopped, and the disk continues with its overlay."""
POLL_S = 0.1
"""Seconds between two questions to libvirt how far a merge is."""


OnMerge = Callable[[str, int, int], None]


def nobody(_target: str, _done: int, _total: int) -> None:
    """Nobody is told how far a merge is."""


class MergeTimedOut(StillpointError):
    code = "merge_timed_out"
    title = "Merging an overlay back does not come to an end"
    detail_template = "{target} was not merged: what is left to merge did not become less for {budget_s:.0f} s"
    remedy_template = "The disk continues with its overlay. Try again when the guest writes less."


PAUSED = "QEMU has paused the guest, as its disk has an I/O error or no space. Make space, and the guest is continued by `virsh resume`"
ENDED_EARLY = "the merge ended before both files were the same"
DEFINITION_BEHIND = "the definition of the next start still names {path}: correct it before the next start"


class MergeImpossible(StillpointError):
    code = "merge_impossible"
    title = "An overlay cannot be merged back"
    detail_template = "{target}: {reason}"
    remedy_template = (
        "Nothing was deleted. See the current state with `virsh domblklist {domain} --details` and `virsh blockjob {domain} {target}`."
    )


@dataclass
class Merge:
    """The result. `was_begun`: a merge has written to a file below, so the point no longer exists."""

    was_begun: bool = False
    merged: list[str] = field(default_factory=list)
    errors: dict[str, StillpointError] = field(default_factory=dict)
    #: Overlays of merged disks that nobody uses, and that could not be deleted.
    left: list[OverlaysLeft] = field(default_factory=list)
    #: Checkpoints of which libvirt has no record any more, as their bitmaps were broken.
    broken_checkpoints: list[str] = field(default_factory=list)
    #: An I/O error has paused the guest, and it could not be continued: its overlay has no space, for example.
    leaves_guest_paused: bool = False

    @property
    def message(self) -> str:
        reasons = [error.detail.rstrip(".") for error in self.errors.values()]
        return "; ".join([*reasons, *([PAUSED] if self.leaves_guest_paused else [])])


class Stall:
    """Sees whether a merge comes nearer to its end. A guest that writes faster than QEMU merges keeps it from that."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._least: float = math.inf
        self._until = time.monotonic() + budget_s

    def note(self, left: float) -> None:
        """`left`: what is still to be done, less than ever before if the merge comes nearer to its end."""
        if left < self._least:
            self._least, self._until = left, time.monotonic() + self._budget_s

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._until


def merge_back(
    guest: Guest, taken: Sequence[Overlay], *, was_begun: bool = False, budget_s: float = BUDGET_S, on_progress: OnMerge = nobody
) -> Merge:
    """Merge one disk after the other. An earlier try may have left them in any state. `was_begun`: such a try wrote to a file below.

    A disk that cannot be merged continues with its overlay. Raises LibvirtUnavailable: the state of the disks is unknown then.
    `on_progress` gets the target, the bytes that are done, and of how many. It raises JobCancelled to stop the merge; another error ends
    only the wait, and QEMU continues. Both are then in `errors`.
    """
    merge = Merge(was_begun)
    for overlay in taken:
        try:
            _merge(guest, overlay, merge, budget_s, on_progress)
            merge.merged.append(overlay.target)
        except LibvirtUnavailable:
            raise
        except StillpointError as error:
            merge.errors[overlay.target] = error
            if not merge.was_begun:
                # The point is still complete. Merging the other disks would leave half a point.
                break
    return merge


def _merge(guest: Guest, overlay: Overlay, merge: Merge, budget_s: float, on_progress: OnMerge) -> None:
    source = guest.sources().get(overlay.target)
    if overlay.is_in_use(source) is None:
        raise _impossible(guest, overlay, f"the disk is on {source}, and not on {overlay.path}")
    _must_agree(guest, overlay, source)
    if source == overlay.path:
        _begin(guest, overlay, merge)
        _wait(guest, overlay, budget_s, on_progress)
        guest.pivot(overlay.target)
    _check_bases(guest, overlay)
    try:
        overlays.remove([overlay], were_merged=True)
    except OverlaysLeft as error:
        merge.left.append(error)


def _must_agree(guest: Guest, overlay: Overlay, source: str | None) -> None:
    """Raises LibvirtBehindQemu if QEMU writes to the overlay while libvirt names the file below.

    libvirt would merge the file that it names, and the overlay would be removed as unused while QEMU writes to it.
    """
    positions = DiskPositions(guest)
    positions.is_on(overlay, source)
    if positions.behind:
        raise error_of(guest, positions.behind)


def _begin(guest: Guest, overlay: Overlay, merge: Merge) -> None:
    mirror = guest.mirror(overlay.target)
    if mirror is None:
        try:
            guest.start_merge(overlay.target)
        except LibvirtCallFailed:
            # The call may have started the merge although it failed. libvirt knows.
            mirror = guest.mirror(overlay.target)
            if mirror is None:
                raise
        except LibvirtUnavailable:
            merge.was_begun = True
            raise
    if mirror is not None and (mirror.job != "active-commit" or mirror.into != overlay.base):
        raise _impossible(guest, overlay, f"another block job ({mirror.job}) writes the disk into {mirror.into}")
    merge.was_begun = True


def _wait(guest: Guest, overlay: Overlay, budget_s: float, on_progress: OnMerge) -> None:
    stall = Stall(budget_s)
    left = merge_space.growth_bytes(overlay)
    while True:
        mirror = guest.mirror(overlay.target)
        if mirror is None:
            raise merge_space.why_not_enough(overlay, left) or _impossible(guest, overlay, ENDED_EARLY)
        if mirror.is_ready:
            return
        progress = guest.merge_progress(overlay.target)
        if progress is not None:
            done, total = progress
            stall.note(total - done)
            left = min(total - done, merge_space.growth_bytes(overlay))
            _tell(guest, overlay.target, done, total, on_progress)
        fault = MergeTimedOut(target=overlay.target, budget_s=budget_s) if stall.is_over else merge_space.why_not_enough(overlay, left)
        if fault is not None:
            guest.stop_merge(overlay.target)
            raise fault
        time.sleep(POLL_S)


def _tell(guest: Guest, target: str, done: int, total: int, on_progress: OnMerge) -> None:
    try:
        on_progress(target, done, total)
    except JobCancelled:
        guest.stop_merge(target)
        raise


def _check_bases(guest: Guest, overlay: Overlay) -> None:
    """Called before the overlay is deleted: neither the running domain nor the definition of its next start may name the overlay."""
    source = guest.sources().get(overlay.target)
    if source != overlay.base:
        raise _impossible(guest, overlay, f"libvirt pivoted, and the disk is on {source}")
    if guest.is_persistent() and guest.persistent_sources().get(overlay.target) == overlay.path:
        raise _impossible(guest, overlay, DEFINITION_BEHIND.format(path=overlay.path))


def _impossible(guest: Guest, overlay: Overlay, reason: str) -> MergeImpossible:
    return MergeImpossible(domain=guest.name, target=overlay.target, reason=reason)
