"""The instants of a freeze window and the durations that follow from them (F§6.2)."""

from dataclasses import dataclass
from typing import Any


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
    point_sent: int | None = None
    point_done: int | None = None
    thaw_sent: int | None = None
    thaw_reply: int | None = None

    @property
    def hold_ms(self) -> float | None:
        """Freeze reply to thaw sent: the part in which writes are certainly held (F§6.2 hold_lower)."""
        return ms_between(self.freeze_reply, self.thaw_sent)

    @property
    def point_in_time_was_inside_the_hold(self) -> bool:
        inside = (self.freeze_reply, self.point_sent, self.point_done, self.thaw_sent)
        known = [instant for instant in inside if instant is not None]
        return len(known) == len(inside) and known == sorted(known)


@dataclass(frozen=True)
class Limits:
    """What the durations are held against, in milliseconds. None: there is no such limit.

    `freeze_to_thaw_ms` is VSS's 60 s for frozen applications (F§5.1); Linux has none.
    """

    freeze_ms: float
    hold_ms: float
    freeze_to_thaw_ms: float | None


@dataclass(frozen=True)
class Timing:
    """Durations in milliseconds, as they stand in the job. `froze` False: there was no hold to measure."""

    instants: WindowInstants
    limits: Limits
    froze: bool

    def as_document(self) -> dict[str, Any]:
        at, limits = self.instants, self.limits
        return {
            "freeze_ms": ms_between(at.freeze_sent, at.freeze_reply),
            "point_in_time_ms": ms_between(at.point_sent, at.point_done),
            "thaw_ms": ms_between(at.thaw_sent, at.thaw_reply),
            "hold_ms": at.hold_ms if self.froze else None,
            "window_ms": ms_between(at.freeze_sent, at.thaw_reply),
            "limits": {"freeze_ms": limits.freeze_ms, "hold_ms": limits.hold_ms, "freeze_to_thaw_ms": limits.freeze_to_thaw_ms},
            "within_limits": self._within_limits() if self.froze else None,
        }

    def _within_limits(self) -> bool:
        at, limits = self.instants, self.limits
        against = (
            (ms_between(at.freeze_sent, at.freeze_reply), limits.freeze_ms),
            (at.hold_ms, limits.hold_ms),
            (ms_between(at.freeze_sent, at.thaw_sent), limits.freeze_to_thaw_ms),
        )
        return all(duration is not None and (limit is None or duration <= limit) for duration, limit in against)
