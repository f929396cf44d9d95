"""Wakes the loop that claims jobs when a job is added in the same process."""

import threading


class Wake:
    """For one waiting loop and any number of wakers. A wake that comes while the loop does not wait counts for the next wait."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wake(self) -> None:
        """Call this after the commit, because the loop looks at the database at once."""
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """True: woken. False: the time passed."""
        woken = self._event.wait(timeout_s)
        # Cleared before the caller looks at the database, so that a job that is committed from now on wakes the loop again.
        self._event.clear()
        return woken
