"""The fuse: a process in the guest that thaws it by itself when nobody on the host can. What it did, and when it burns."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

FUSE_MARGIN_S = 5
"""Whoever on the host is to thaw has had his turn by then."""


class FuseState(StrEnum):
    armed = "armed"
    """It burns in the guest. After a job: it was left so, because a thaw was never answered or the guest is frozen again."""
    disarmed = "disarmed"
    fired = "fired"
    """It told the guest's kernel to thaw every filesystem."""
    unavailable = "unavailable"
    """The guest has none, and the job went on without."""
    unknown = "unknown"
    """Whether there is one, or what became of it, could not be learned."""


@dataclass(frozen=True)
class FuseReport:
    """`after_s`: seconds of the guest's clock from arming to burning; it stands still while the guest is paused."""

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
        """In doubt it has: nothing is taken for held that may not have been."""
        return self.state in (FuseState.fired, FuseState.unknown)

    def now(self, state: FuseState, reason: str | None = None) -> "FuseReport":
        return replace(self, state=state, reason=reason)


def burns_after_s(timeout_ms: float, hold_limit_ms: float) -> int:
    """Whole seconds: not every guest's `sleep` knows parts of one."""
    return math.ceil((timeout_ms + hold_limit_ms) / 1000 + FUSE_MARGIN_S)


def read_arming(output: str) -> tuple[FuseState, str | None]:
    """What the arming script printed: `armed`, or `unavailable: REASON`."""
    word, _, reason = output.strip().partition(": ")
    if word == "armed":
        return FuseState.armed, None
    if word == "unavailable":
        return FuseState.unavailable, reason
    return FuseState.unavailable, f"the guest's shell did not say that it is armed, but {output.strip()[:200]!r}"


_ENDINGS: dict[str, tuple[FuseState, str | None]] = {
    "disarmed": (FuseState.disarmed, None),
    "fired": (FuseState.fired, "it burned down, and the guest thawed itself"),
    "failed": (FuseState.unknown, "it burned down, and the guest's kernel did not take its request to thaw"),
    "none": (FuseState.unknown, "no trace of it is left in the guest, which was perhaps started anew"),
    "other": (FuseState.unknown, "another fuse has taken its place"),
    "gone": (FuseState.unknown, "its process was ended by somebody else"),
    "alive": (FuseState.armed, "its process did not end when it was told to"),
}


def read_ending(output: str) -> tuple[FuseState, str | None]:
    """What the disarming script printed: one word."""
    word = output.strip()
    return _ENDINGS.get(word, (FuseState.unknown, f"the guest's shell answered {word[:200]!r}"))
