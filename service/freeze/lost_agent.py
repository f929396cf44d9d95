"""A guest whose thaw libvirt did not even send, as it has lost the agent: what is seen from outside, and what became of the fuse."""

import time

from service import metrics
from service.freeze.fuse import Fuse
from service.freeze.seen_writing import freezable_disks, writes_to_all
from service.hypervisor.guest import Guest
from service.model.fuse import FuseState
from service.model.inventory import Survey
from service.model.window import WindowRecord

LOOK_S = 8.0
"""A guest that is used a little writes every 5 s: ext4 commits its journal so often."""
FUSE_WAIT_S = 30.0
"""A fuse that is due sooner than this is waited for: then the job can tell that the guest has thawed itself."""
FUSE_LATE_S = 5.0
"""The clock of a busy guest runs late."""
_SEEN = "seen from outside: the guest wrote to its disks again when the fuse was due"


def look_from_outside(guest: Guest, found: Survey, window: WindowRecord, fuse: Fuse | None) -> Fuse | None:
    """Records in `window` whether the guest writes to every disk that may be frozen; answers the fuse as it is then. Raises nothing.

    The agent had done what it was asked, and froze or thawed everything; so did the fuse. So writes show that nothing is frozen.
    """
    targets = freezable_disks(found)
    if not targets:
        return fuse
    window.writes_afterwards = writes_to_all(guest, targets, _patience_s(fuse))
    return _told_by_writes(fuse) if fuse is not None and window.writes_afterwards else fuse


def _told_by_writes(fuse: Fuse) -> Fuse:
    """The fuse of a guest that writes again: it has burned, where its time had come."""
    if fuse.due_at is None or time.monotonic() < fuse.due_at:
        return fuse
    metrics.FUSES_FIRED.inc()
    return Fuse(None, fuse.report.now(FuseState.fired, _SEEN))


def _patience_s(fuse: Fuse | None) -> float:
    left = fuse.seconds_left() if fuse is not None else None
    return LOOK_S + left + FUSE_LATE_S if left is not None and left <= FUSE_WAIT_S else LOOK_S
