"""Reads many things at the same time. A read that hangs delays no other read, in this round or the next."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_S = 0.05
"""Seconds between two looks whether all reads have ended."""


class ParallelReads(Generic[T]):
    """Uses daemon threads, unlike concurrent.futures: a read that hangs must not delay the end of the process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    def read(self, work: Mapping[str, Callable[[], T]], patience_s: float) -> dict[str, T]:
        """The results that came in time. A key whose read of an earlier round still hangs is left out. Raises the error of a read."""
        reading = self.begin(work)
        results = reading.results(patience_s)
        reading.stop()
        return results

    def begin(self, work: Mapping[str, Callable[[], T]]) -> "Reading[T]":
        """Like `read`, for a caller that asks for results more than once."""
        with self._lock:
            todo = deque(key for key in work if key not in self._under_way)
        results: dict[str, T] = {}
        errors: list[Exception] = []
        args = (work, todo, results, errors)
        threads = [threading.Thread(target=self._work, args=args, name="reader", daemon=True) for _ in range(min(self._count, len(todo)))]
        for thread in threads:
            thread.start()
        return Reading(threads, todo, results, errors)

    def _work(self, work: Mapping[str, Callable[[], T]], todo: deque[str], results: dict[str, T], errors: list[Exception]) -> None:
        while todo:
            try:
                key = todo.popleft()
            except IndexError:
                return
            with self._lock:
                self._under_way.add(key)
            try:
                results[key] = work[key]()
            except Exception as error:  # noqa: BLE001 - raised by `results`, in the thread that asked
                errors.append(error)
            finally:
                with self._lock:
                    self._under_way.discard(key)


class Reading(Generic[T]):
    """One round of reads."""

    def __init__(self, threads: list[threading.Thread], todo: deque[str], results: dict[str, T], errors: list[Exception]) -> None:
        self._threads = threads
        self._todo = todo
        self._results = results
        self._errors = errors

    def results(self, patience_s: float, has_no_time: Callable[[], bool] = lambda: False) -> dict[str, T]:
        """The results by key, after at most `patience_s`: sooner if all reads have ended or `has_no_time`. Raises the error of a read."""
        deadline = time.monotonic() + patience_s
        while not self.is_over and (left := deadline - time.monotonic()) > 0 and not has_no_time():
            next(thread for thread in self._threads if thread.is_alive()).join(min(left, LOOK_S))
        if self._errors:
            raise self._errors[0]
        return dict(self._results)

    @property
    def is_over(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """A thread whose read hangs begins no other read when it returns."""
        self._todo.clear()
