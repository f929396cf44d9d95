"""Writing dirty pages to disk while the guest still runs, so that the freeze is short.

Linux blocks writers first and flushes afterwards. Measured on a guest with 40 MB of dirty pages and a disk of
20 MB/s: 1,800 ms in the freeze without, 40 ms with.
"""

import time
from dataclasses import dataclass
from typing import Any

from service.errors import StillpointError
from service.hypervisor.guest import Guest
from service.hypervisor.program import Running

BUDGET_MS = 60_000
"""Milliseconds for all rounds of `sync` together. After that the job continues, with a warning."""
MAX_ROUNDS = 4
"""Rounds of `sync`. After the last round the job continues, even if that round was long."""
SHORT_ROUND_MS = 200.0
"""Milliseconds. If a round began longer ago, there may be new dirty pages, so another round follows, up to MAX_ROUNDS."""


@dataclass(frozen=True)
class Preflush:
    rounds: int
    duration_ms: float
    message: str | None = None

    def as_document(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "duration_ms": self.duration_ms, "message": self.message}


class Flush:
    """`sync` in the guest, begun while the host still prepares. A failure only makes the freeze longer, so it is a warning."""

    def __init__(self, guest: Guest) -> None:
        """Begins the first round. Raises nothing."""
        self._guest = guest
        self._start = time.monotonic()
        self._rounds = 0
        self._running: Running | None = None
        self._message: str | None = None
        self._begin_round()

    def finish(self) -> Preflush:
        """Wait for the end, and run `sync` again while `sync` takes long, or began long ago. Raises nothing."""
        while self._running is not None and not self._is_done(self._running) and self._rounds < MAX_ROUNDS:
            self._begin_round()
        return Preflush(self._rounds, round((time.monotonic() - self._start) * 1000, 3), self._message)

    def _begin_round(self) -> None:
        self._rounds += 1
        self._running = None
        try:
            self._running = self._guest.begin("/bin/sync")
        except StillpointError as error:
            self._message = error.detail

    def _is_done(self, running: Running) -> bool:
        """Whether this round was the last."""
        left_ms = BUDGET_MS - (running.begun - self._start) * 1000
        try:
            result = running.result(max(1, int(left_ms)))
        except StillpointError as error:
            self._message = error.detail
            return True
        if result.exit_code != 0:
            self._message = f"sync exited with {result.exit_code}"
            return True
        return (time.monotonic() - running.begun) * 1000 < SHORT_ROUND_MS or left_ms < SHORT_ROUND_MS
