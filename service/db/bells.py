"""Wakes the threads of this process that wait for a change of a row, so that they need not ask the database all the time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Bells:
    """One bell for each key. A waiting thread must also ask the database now and then, because another process may make the change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, list[Callable[[], object]]] = {}

    def ring(self, key: str) -> None:
        """Call this after the commit."""
        with self._lock:
            called = list(self._listeners.get(key, ()))
        for call in called:
            call()

    def is_listened_to(self, key: str) -> bool:
        with self._lock:
            return key in self._listeners

    @contextmanager
    def listening(self, key: str, call: Callable[[], object]) -> Iterator[None]:
        """`call` runs in the thread that rings, and must not wait for anything."""
        with self._lock:
            self._listeners.setdefault(key, []).append(call)
        try:
            yield
        finally:
            with self._lock:
                self._listeners[key].remove(call)
                if not self._listeners[key]:
                    del self._listeners[key]
