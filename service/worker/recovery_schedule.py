"""Says when recovery looks at a job again: at once after a change on the host, otherwise after a pause that grows."""

import threading
import time

LOOK_AGAIN_S = 1.0
"""Seconds before the second look. The pause doubles with each look."""
LOOK_AGAIN_MAX_S = 30.0
"""Seconds at which the pause stops to grow. Recovery never gives up a job."""


class Schedule:
    def __init__(self) -> None:
        self._pauses: dict[str, float] = {}
        self._due_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_due(self, job_id: str) -> bool:
        with self._lock:
            return time.monotonic() >= self._due_at.get(job_id, 0.0)

    def put_off(self, job_id: str) -> None:
        with self._lock:
            pause = self._pauses.get(job_id, LOOK_AGAIN_S)
            self._due_at[job_id] = time.monotonic() + pause
            self._pauses[job_id] = min(pause * 2, LOOK_AGAIN_MAX_S)

    def make_all_due(self) -> None:
        with self._lock:
            self._due_at.clear()

    def forget(self, job_id: str) -> None:
        with self._lock:
            self._due_at.pop(job_id, None)
            self._pauses.pop(job_id, None)
