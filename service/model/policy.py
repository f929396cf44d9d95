"""What a job may demand: how to freeze, and which verdict counts as success."""

from dataclasses import dataclass
from enum import StrEnum

from service.errors import HoldLimitTooLong


class FreezeMode(StrEnum):
    required = "required"
    """No freeze, no snapshot: the job fails before anything is taken."""
    preferred = "preferred"
    """Freeze where it works; otherwise take the point and give it the verdict it deserves."""
    off = "off"
    """Do not freeze: the verdict is `crash`, or `offline` for a domain that is shut off."""


class OnShortfall(StrEnum):
    """What becomes of a point that is worse than what was required."""

    keep = "keep"
    discard = "discard"
    retry = "retry"


DEFAULT_FREEZE_TIMEOUT_MS = 120_000
"""F§6.1: VSS alone may take 60 s to freeze and more to prepare; a hook in a Linux guest may dump a database."""
DEFAULT_HOLD_LIMIT_MS = 30_000
"""F§6.1: the default for Linux, which has no limit of its own."""
WINDOWS_HOLD_LIMIT_MS = 8_000
"""F§6.1, hard: the kernel lets writes go after 10 s, counted from a little before the freeze reply."""
WINDOWS_HOLD_SOFT_MS = 5_000
"""F§6.1, soft: a point in time that begins later than this has little chance of ending in time."""
WINDOWS_HOLD_MS = 10_000


@dataclass(frozen=True)
class HoldLimits:
    """`hard_ms`: thaw whatever happens. `soft_ms`: do not begin the point in time later than this; None: no such limit."""

    hard_ms: int
    soft_ms: int | None


@dataclass(frozen=True)
class FreezePolicy:
    """`hold_limit_ms` and `hold_soft_ms` None: the default of the guest's system."""

    mode: FreezeMode = FreezeMode.required
    timeout_ms: int = DEFAULT_FREEZE_TIMEOUT_MS
    hold_limit_ms: int | None = None
    hold_soft_ms: int | None = None
    preflush: bool = True
    #: Leave something in a Linux guest that thaws it by itself if nobody on the host does.
    fuse: bool = True

    def hold_limits(self, *, is_windows: bool, holds: bool = True) -> HoldLimits:
        """`holds` False: nothing is frozen. Raises HoldLimitTooLong: Windows holds writes for 10 s, whatever anybody asks for."""
        if not is_windows:
            return HoldLimits(self.hold_limit_ms or DEFAULT_HOLD_LIMIT_MS, self.hold_soft_ms)
        limits = HoldLimits(self.hold_limit_ms or WINDOWS_HOLD_LIMIT_MS, self.hold_soft_ms or WINDOWS_HOLD_SOFT_MS)
        longest = max(limits.hard_ms, limits.soft_ms or 0)
        if holds and longest >= WINDOWS_HOLD_MS:
            raise HoldLimitTooLong(asked_ms=longest, limit_ms=WINDOWS_HOLD_MS)
        return limits
