"""A guest whose agent libvirt has lost, so that no thaw was sent: what the host sees from outside, and what the fuse did."""

import time

from service import metrics
from service.freeze.fuse import Fuse
from service.freeze.seen_writing import freezable_disks, writes_to_all
from service.hypervisor.guest import Guest
from service.model.fuse import FuseState
from service.model.inventory import Survey
from service.model.window import WindowRecord

LOOK_S = 8.0
"""Seconds that the host watches for writes. A guest in use writes every 5 s, because ext4 commits its journal so often."""
FUSE_WAIT_S = 30.0
"""Seconds. If the fuse is due sooner, the job waits for it, and can then record that the guest has thawed itself."""
FUSE_LATE_S = 5.0
"""Seconds that the fuse may be late, because the clock of a busy guest runs late."""
_SEEN = "seen from outside: the guest wrote to its disks again when the fuse was due"


def look_from_outside(guest: Guest, survey: Survey, window: WindowRecord, fuse: Fuse | None) -> Fuse | None:
    """Record in `window` whether the guest writes to every disk that may be frozen. Returns the fuse in its new state. Raises nothing.

    The agent and the fuse always freeze or thaw all of these filesystems. So writes to all disks show that nothing is frozen.
    """
    targets = freezable_disks(survey)
    if not targets:
        return fuse
    window.writes_afterwards = writes_to_all(guest, targets, _patience_s(fuse))
    return _after_writes(fuse) if fuse is not None and window.writes_afterwards else fuse


def _after_writes(fuse: Fuse) -> Fuse:
    """The fuse of a guest that writes again. If the fuse was due, it has fired."""
    if fuse.due_at is None or time.monotonic() < fuse.due_at:
        return fuse
    metrics.FUSES_FIRED.inc()
    return Fuse(None, fuse.report.now(FuseState.fired, _SEEN))


def _patience_s(fuse: Fuse | None) -> float:
    left = fuse.seconds_left() if fuse is not None else None
    return LOOK_S + left + FUSE_LATE_S if left is not None and left <= FUSE_WAIT_S else LOOK_S
