"""Logs that something the worker needs is away: a line when it goes, a line each minute while it is away, a line when it is back."""

import threading
import time

from service import log
from service.errors import StillpointError

EVERY_SECONDS = 60.0
"""Seconds between two log lines about the same problem."""

_logger = log.get(__name__)


class Absence:
    """All threads that notice the problem share one object."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._since: float | None = None
        self._code: str | None = None
        self._logged_at = 0.0

    def note(self, problem: StillpointError | None) -> None:
        """`problem` None: the thing is available."""
        with self._lock:
            now = time.monotonic()
            if problem is None:
                if self._since is not None:
                    _logger.warning(f"{self._what}_back", away_seconds=round(now - self._since, 1))
                self._since = self._code = None
                return
            if self._since is None:
                self._since = now
            if problem.code != self._code or now - self._logged_at >= EVERY_SECONDS:
                _logger.error(f"{self._what}_away", code=problem.code, detail=problem.detail, for_seconds=round(now - self._since, 1))
                self._code, self._logged_at = problem.code, now
