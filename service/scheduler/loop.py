"""The thread of a look: it looks again and again until it is stopped, and no error ends it."""

import threading
from collections.abc import Callable

from service import log
from service.errors import StillpointError

STOP_S = 2.0
"""Seconds that a stop waits for the thread. A transaction that was not committed is taken back by the database."""

Look = Callable[[], object]
TimedLook = Callable[[], float]
"""Returns the seconds until the next look."""


class Loop:
    """`name`: of the thread, and in its lines of the log. `failed_s`: seconds until the next look after an error.

    `stopping`: also ends a look that takes long. The next look, of any process, continues.
    """

    def __init__(self, name: str, look: TimedLook, stopping: threading.Event, *, failed_s: float) -> None:
        self.name = name
        self._look = look
        self._stopping = stopping
        self._failed_s = failed_s
        self._logger = log.get(f"service.scheduler.{name}")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @classmethod
    def every(cls, seconds: float, name: str, look: Look, stopping: threading.Event) -> "Loop":
        """A loop that looks again after so many seconds, whatever the look found."""

        def timed() -> float:
            look()
            return seconds

        return cls(name, timed, stopping, failed_s=seconds)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            pause_s = self._look_once()

    def _look_once(self) -> float:
        try:
            return self._look()
        except StillpointError as error:
            self._logger.warning(f"{self.name}_put_off", detail=error.detail)
        except Exception:
            # The edge of the thread: after any error the next look comes.
            self._logger.exception(f"{self.name}_failed")
        return self._failed_s
