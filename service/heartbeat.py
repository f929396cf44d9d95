"""Watches whether a loop still turns. A loop that hangs is as useless as a dead loop, and nothing else reports it."""

import time

from service.errors import LoopHangs

MISSED = 3
"""Turns in a row that a loop may be late before it is said to hang."""
PATIENCE_S = 60.0
"""Seconds that one turn may take, because each question to a database, to libvirt and to silent guests has its own limit."""


class Heartbeat:
    def __init__(self, thread: str, interval_s: float) -> None:
        """`interval_s`: how long the loop waits between two turns at most."""
        self.thread = thread
        self._interval_s = interval_s
        self._at = time.monotonic()

    def beat(self) -> None:
        self._at = time.monotonic()

    @property
    def limit_s(self) -> float:
        return MISSED * self._interval_s + PATIENCE_S

    def silent_s(self) -> float:
        return time.monotonic() - self._at

    def problem(self) -> LoopHangs | None:
        silent_s = self.silent_s()
        return LoopHangs(thread=self.thread, silent_s=round(silent_s), limit_s=self.limit_s) if silent_s > self.limit_s else None
