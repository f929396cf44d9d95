"""What a job may demand: how to freeze, and what to do with a point that is worse than required."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from service.errors import HoldLimitTooLong


class FreezeMode(StrEnum):
    required = "required"
    """Without a freeze the job fails, and no snapshot is taken."""
    preferred = "preferred"
    """Freeze if possible. Otherwise take the snapshot without a freeze, with the verdict that the evidence gives."""
    off = "off"
    """Do not freeze. The verdict is `crash`, or `offline` for a domain that is shut off."""


class OnShortfall(StrEnum):
    """What to do with a point that is worse than required."""

    keep = "keep"
    discard = "discard"
    retry = "retry"


DEFAULT_FREEZE_TIMEOUT_MS = 120_000
"""Milliseconds until an unanswered freeze is given up (F§6.1). VSS may take 60 s, and more to prepare. A hook may dump a database."""
DEFAULT_HOLD_LIMIT_MS = 30_000
"""Milliseconds after the freeze reply. Then the guest is thawed. The default for Linux, which has no limit of its own (F§6.1)."""
WINDOWS_HOLD_LIMIT_MS = 8_000
"""Milliseconds after the freeze reply. Then the guest is thawed. Windows releases the writes 10 s after it began to hold them (F§6.1)."""
WINDOWS_HOLD_SOFT_MS = 5_000
"""Milliseconds after the freeze reply. Then no snapshot begins any more, because it might not end in time (F§6.1)."""
WINDOWS_HOLD_MS = 10_000
"""Milliseconds. A job that asks Windows to hold this long, or longer, is refused."""


@dataclass(frozen=True)
class HoldLimits:
    """`hard_ms`: thaw then in any case. `soft_ms`: do not begin the point in time later than this; None: no such limit."""

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
    #: Leave a fuse in a Linux guest: the fuse thaws the guest if the host does not.
    fuse: bool = True

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> "FreezePolicy":
        """A field that is missing or null gets its default."""
        asked = {name: value for name, value in (document or {}).items() if value is not None}
        return cls(**{**asked, "mode": FreezeMode(asked["mode"])} if "mode" in asked else asked)

    def as_document(self) -> dict[str, Any]:
        return {**asdict(self), "mode": self.mode.value}

    def hold_limits(self, *, is_windows: bool, holds: bool = True) -> HoldLimits:
        """`holds` False: nothing is frozen. Raises HoldLimitTooLong: Windows never holds writes for longer than 10 s."""
        if not is_windows:
            return HoldLimits(self.hold_limit_ms or DEFAULT_HOLD_LIMIT_MS, self.hold_soft_ms)
        limits = HoldLimits(self.hold_limit_ms or WINDOWS_HOLD_LIMIT_MS, self.hold_soft_ms or WINDOWS_HOLD_SOFT_MS)
        longest = max(limits.hard_ms, limits.soft_ms or 0)
        if holds and longest >= WINDOWS_HOLD_MS:
            raise HoldLimitTooLong(asked_ms=longest, limit_ms=WINDOWS_HOLD_MS)
        return limits
