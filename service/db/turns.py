"""Decides which thread of this process writes next, for a database that accepts one writer at a time."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class WriteTurnMissed(Exception):
    """No turn came. The text is the time that was waited."""


class Turns:
    """One writer at a time, in the order of arrival. Urgent writers go before the others.

    Without turns every waiting thread sleeps in SQLite's busy handler for up to 100 ms at a time. Then it is a matter of luck which thread
    gets the lock, and some threads wait for seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._urgent: deque[threading.Lock] = deque()
        self._others: deque[threading.Lock] = deque()

    @contextmanager
    def turn(self, *, urgent: bool, patience_s: float) -> Iterator[None]:
        """Raises WriteTurnMissed if no turn came within `patience_s`."""
        self._wait(urgent=urgent, patience_s=patience_s)
        try:
            yield
        finally:
            self._pass_on()

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._urgent) + len(self._others)

    def _wait(self, *, urgent: bool, patience_s: float) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            queue = self._urgent if urgent else self._others
            queue.append(mine)
        if mine.acquire(timeout=patience_s):
            return
        with self._lock:
            if mine in queue:
                queue.remove(mine)
                raise WriteTurnMissed(f"{patience_s:g} s")
        # The turn was given to this thread just after its wait had ended.

    def _pass_on(self) -> None:
        with self._lock:
            queue = self._urgent or self._others
            if queue:
                queue.popleft().release()
            else:
                self._is_taken = False
