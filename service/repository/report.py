"""What a step of the hand says while it works, and how fast it may work. It lives in the hand, see `hand_process`."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

SAY_AGAIN_S = 0.2
"""Seconds between two lines of progress. Lines that come earlier are left out: the next one says more."""
WAIT_LINE_S = 1.0
"""Seconds between two lines while a step waits for its pace, so that the wait does not count as silence."""
MAX_CREDIT_S = 0.1
"""Seconds of the pace that a step may make up for after it was slower than allowed. What is older is forgotten."""


def _nobody(line: Mapping[str, Any]) -> None:
    """For a step that runs without a hand, as in a test or in a command."""


class Report:
    """For all threads of a step. `Report()` alone says nothing, and keeps no pace.

    Silence is what the parent takes for a hang: a step says something after each piece of work, and never from a thread of its own.
    """

    def __init__(self, say: Callable[[Mapping[str, Any]], None] = _nobody, *, key: bytes | None = None) -> None:
        self._say = say
        #: The key of an encrypted repository. It is never written to a file, a log or an argument.
        self.key = key
        self._lock = threading.Lock()
        self._pace_changed = threading.Condition()
        self._pace: int | None = None
        self._free_at = 0.0
        self._last_line = 0.0
        self._left_out: Mapping[str, Any] = {}

    def progress(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """Bytes of the whole step, not of one of its files. Cheap: call it for each block."""
        is_complete = total_bytes is not None and done_bytes >= total_bytes
        self._line({"done": done_bytes, "total": total_bytes}, is_urgent=is_complete)

    def alive(self) -> None:
        """A piece of work is done that has no bytes."""
        self._line({"alive": True})

    def set_pace(self, bytes_s: int | None) -> None:
        """None: as fast as possible. 0: paused. A step that waits is told at once."""
        with self._pace_changed:
            self._pace = bytes_s
            self._free_at = time.monotonic()
            self._pace_changed.notify_all()

    def wait_for_pace(self, count: int) -> None:
        """Block until `count` bytes more fit the pace. All threads of the step share one pace."""
        with self._pace_changed:
            while self._pace is not None:
                now = time.monotonic()
                if self._pace > 0 and now >= self._free_at:
                    self._free_at = max(self._free_at, now - MAX_CREDIT_S) + count / self._pace
                    return
                remaining = self._free_at - now if self._pace > 0 else WAIT_LINE_S
                self._line({"waiting": True})
                self._pace_changed.wait(min(remaining, WAIT_LINE_S))

    def secret_file(self) -> int:
        """A descriptor of a file in memory with the key, for `--object secret,id=…,file=/dev/fd/N` and `pass_fds`. The caller closes it."""
        descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
        # Fits at once: a key has some bytes only, and the file is in memory.
        os.write(descriptor, self.key or b"")
        return descriptor

    def _line(self, line: Mapping[str, Any], *, is_urgent: bool = False) -> None:
        """What a line of progress says that comes too early goes with the next one: the threads of a slow step wait in step with
        each other, so that the lines of one would push out each line of another.
        """
        with self._lock:
            now = time.monotonic()
            line = {**self._left_out, **line}
            if not is_urgent and now < self._last_line + SAY_AGAIN_S:
                self._left_out = {key: line[key] for key in ("done", "total") if key in line}
                return
            self._last_line, self._left_out = now, {}
        self._say(line)
