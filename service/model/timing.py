"""The instants of a freeze window and the durations that follow from them (F§6.2)."""

from dataclasses import dataclass
from typing import Any

FREEZE_LIMIT_MS = 60_000.0
"""VSS: applications stay frozen for 60 s at most (F§5.1). Linux has no limit; the same number is shown for comparison."""


def ms_between(start_ns: int | None, end_ns: int | None) -> float | None:
    """Milliseconds, to the microsecond, between two monotonic instants; None when one of them never came."""
    if start_ns is None or end_ns is None:
        return None
    return round((end_ns - start_ns) / 1e6, 3)


@dataclass
class WindowInstants:
    """Monotonic nanoseconds; None: this did not happen."""

    freeze_sent: int | None = None
    freeze_reply: int | None = None
    snapshot_sent: int | None = None
    snapshot_done: int | None = None
    thaw_sent: int | None = None
    thaw_reply: int | None = None

    @property
    def hold_ms(self) -> float | None:
        """Freeze reply to thaw sent: the part in which writes are certainly held (F§6.2 hold_lower)."""
        return ms_between(self.freeze_reply, self.thaw_sent)

    @property
    def point_in_time_was_inside_the_hold(self) -> bool:
        inside = (self.freeze_reply, self.snapshot_sent, self.snapshot_done, self.thaw_sent)
        known = [instant for instant in inside if instant is not None]
        return len(known) == len(inside) and known == sorted(known)


@dataclass(frozen=True)
class Timing:
    """Durations in milliseconds, as they stand in the job."""

    instants: WindowInstants
    hold_limit_ms: float

    def as_document(self) -> dict[str, Any]:
        at = self.instants
        hold_ms = at.hold_ms
        window_ms = ms_between(at.freeze_sent, at.thaw_reply)
        freeze_to_thaw_ms = ms_between(at.freeze_sent, at.thaw_sent)
        within = (
            None
            if hold_ms is None
            else hold_ms <= self.hold_limit_ms and (freeze_to_thaw_ms or 0.0) <= FREEZE_LIMIT_MS + self.hold_limit_ms
        )
        return {
            "freeze_ms": ms_between(at.freeze_sent, at.freeze_reply),
            "point_in_time_ms": ms_between(at.snapshot_sent, at.snapshot_done),
            "thaw_ms": ms_between(at.thaw_sent, at.thaw_reply),
            "hold_ms": hold_ms,
            "window_ms": window_ms,
            "limits": {"freeze_ms": FREEZE_LIMIT_MS, "hold_ms": self.hold_limit_ms, "freeze_to_thaw_ms": FREEZE_LIMIT_MS},
            "within_limits": within,
        }
