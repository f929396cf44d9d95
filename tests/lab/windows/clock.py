"""The guest's time: real, faster than real, or moved by hand."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds as the guest counts them, from an origin of their own."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class ScaledClock:
    """`scale` guest seconds pass in one real second; 1 is real time."""

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale
        self._origin_ns = time.monotonic_ns()

    def now(self) -> float:
        return (time.monotonic_ns() - self._origin_ns) / 1e9 * self._scale

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds) / self._scale)


class ManualClock:
    """Stands still until somebody sleeps on it; then the time is simply later."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += max(0.0, seconds)
