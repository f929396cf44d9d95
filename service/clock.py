"""Times as text, and the time of day of an instant."""

import time
from datetime import UTC, datetime


def rfc3339(instant: datetime) -> str:
    return instant.isoformat(timespec="microseconds").replace("+00:00", "Z")


class WallClock:
    """Wall-clock times for monotonic instants, from one pair read together."""

    def __init__(self) -> None:
        self.wall = datetime.now(UTC)
        self.monotonic_ns = time.monotonic_ns()

    def at(self, instant_ns: int) -> datetime:
        return datetime.fromtimestamp(self.wall.timestamp() + (instant_ns - self.monotonic_ns) / 1e9, UTC)
