"""The time in which a guest was paused: its clock stands, so its meter cannot tell how long a write was held then."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Pause:
    """By the host's clock, from before the guest was told to stand until after it was told to go on."""

    begin: datetime
    end: datetime


def paused_ms_of_hold(job: dict[str, Any], pauses: Sequence[Pause]) -> float:
    """How much of the hold that the job tells of the guest was paused. The hold begins with the reply to the freeze."""
    if not pauses:
        return 0.0
    freeze = [phase for phase in job["phases"] if phase["name"] == "freeze"][-1]
    begin = datetime.fromisoformat(freeze["started_at"]) + timedelta(milliseconds=freeze["duration_ms"])
    end = begin + timedelta(milliseconds=job["timing"]["hold_ms"])
    both = (min(end, pause.end) - max(begin, pause.begin) for pause in pauses)
    return sum(max(0.0, overlap.total_seconds() * 1000) for overlap in both)
