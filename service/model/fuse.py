"""The fuse: a process in the guest that thaws the guest when the host cannot. What the fuse did, and when it fires."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

FUSE_MARGIN_S = 5
"""Seconds that the fuse waits longer than freeze timeout and hold limit together. The host should have thawed by then."""


class FuseState(StrEnum):
    armed = "armed"
    """The fuse waits in the guest. After a job: the thaw was never answered, or the guest is frozen again, so the fuse was left armed."""
    disarmed = "disarmed"
    fired = "fired"
    """The fuse told the guest's kernel to thaw every filesystem."""
    unavailable = "unavailable"
    """The guest has no fuse, and the job continued without a fuse."""
    unknown = "unknown"
    """It is not known whether the guest has a fuse, or what the fuse did."""


@dataclass(frozen=True)
class FuseReport:
    """`after_s`: seconds of the guest's clock from arming to firing. That clock stands still while the guest is paused."""

    state: FuseState
    after_s: int
    reason: str | None = None
    arm_ms: float | None = None
    disarm_ms: float | None = None

    def as_document(self) -> dict[str, Any]:
        return {
            "state": self.state.value,
            "after_s": self.after_s,
            "reason": self.reason,
            "arm_ms": self.arm_ms,
            "disarm_ms": self.disarm_ms,
        }

    @property
    def may_have_fired(self) -> bool:
        """True in doubt: a hold counts only where it is certain."""
        return self.state in (FuseState.fired, FuseState.unknown)

    def now(self, state: FuseState, reason: str | None = None) -> "FuseReport":
        return replace(self, state=state, reason=reason)


def fires_after_s(timeout_ms: float, hold_limit_ms: float) -> int:
    """Whole seconds, because `sleep` in some guests does not accept fractions."""
    return math.ceil((timeout_ms + hold_limit_ms) / 1000 + FUSE_MARGIN_S)


def read_arming(output: str) -> tuple[FuseState, str | None]:
    """What the arming script printed: `armed`, or `unavailable: REASON`."""
    word, _, reason = output.strip().partition(": ")
    if word == "armed":
        return FuseState.armed, None
    if word == "unavailable":
        return FuseState.unavailable, reason
    return FuseState.unavailable, f"the guest's shell did not confirm the fuse, but answered {output.strip()[:200]!r}"


_ENDINGS: dict[str, tuple[FuseState, str | None]] = {
    "disarmed": (FuseState.disarmed, None),
    "fired": (FuseState.fired, "the fuse fired, and the guest thawed itself"),
    "failed": (FuseState.unknown, "the fuse fired, and the guest's kernel refused the thaw"),
    "none": (FuseState.unknown, "the guest has no trace of the fuse; perhaps the guest restarted"),
    "other": (FuseState.unknown, "the guest has a newer fuse in its place"),
    "gone": (FuseState.unknown, "another program ended the process of the fuse"),
    "alive": (FuseState.armed, "the process of the fuse did not end on request"),
}


def read_ending(output: str) -> tuple[FuseState, str | None]:
    """What the disarming script printed: one word."""
    word = output.strip()
    return _ENDINGS.get(word, (FuseState.unknown, f"the guest's shell answered {word[:200]!r}"))
