"""Many things read side by side; one that hangs hides none of the others, now or the next time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_S = 0.05


class ParallelReads(Generic[T]):
    """Daemon threads, unlike those of concurrent.futures: a reader that hangs must not hold up the end of the process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    def read(self, work: Mapping[str, Callable[[], T]], patience_s: float) -> dict[str, T]:
        """What was read in time; a key whose reading of an earlier round has not ended is left out. Raises what a reading raised."""
        reading = self.begin(work)
        found = reading.so_far(patience_s)
        reading.stop()
        return found

    def begin(self, work: Mapping[str, Callable[[], T]]) -> "Reading[T]":
        """The same, to be looked at more than once."""
        with self._lock:
            todo = deque(key for key in work if key not in self._under_way)
        found: dict[str, T] = {}
        errors: list[Exception] = []
        args = (work, todo, found, errors)
        threads = [threading.Thread(target=self._work, args=args, name="reader", daemon=True) for _ in range(min(self._count, len(todo)))]
        for thread in threads:
            thread.start()
        return Reading(threads, todo, found, errors)

    def _work(self, work: Mapping[str, Callable[[], T]], todo: deque[str], found: dict[str, T], errors: list[Exception]) -> None:
        while todo:
            try:
                key = todo.popleft()
            except IndexError:
                return
            with self._lock:
                self._under_way.add(key)
            try:
                found[key] = work[key]()
            except Exception as error:  # noqa: BLE001 - raised by `so_far`, in the thread that asked
                errors.append(error)
            finally:
                with self._lock:
                    self._under_way.discard(key)


class Reading(Generic[T]):
    """One round of readings, under way."""

    def __init__(self, threads: list[threading.Thread], todo: deque[str], found: dict[str, T], errors: list[Exception]) -> None:
        self._threads = threads
        self._todo = todo
        self._found = found
        self._errors = errors

    def so_far(self, patience_s: float, has_no_time: Callable[[], bool] = lambda: False) -> dict[str, T]:
        """What was read after `patience_s` at most, sooner when all is read or `has_no_time`. Raises what a reading raised."""
        deadline = time.monotonic() + patience_s
        while not self.is_over and (left := deadline - time.monotonic()) > 0 and not has_no_time():
            next(thread for thread in self._threads if thread.is_alive()).join(min(left, LOOK_S))
        if self._errors:
            raise self._errors[0]
        return dict(self._found)

    @property
    def is_over(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Those that hang go on to nothing else when they return."""
        self._todo.clear()
