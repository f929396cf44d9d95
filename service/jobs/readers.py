"""Many things read side by side; one that hangs hides none of the others, now or the next time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Readers(Generic[T]):
    """Daemon threads, unlike those of concurrent.futures: a reader that hangs must not hold up the end of the process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    def read(self, work: Mapping[str, Callable[[], T]], patience_s: float) -> dict[str, T]:
        """What was read in time; a key whose reading of an earlier round has not ended is left out. Raises what a reading raised."""
        with self._lock:
            todo = deque(key for key in work if key not in self._under_way)
        found: dict[str, T] = {}
        errors: list[Exception] = []
        deadline = time.monotonic() + patience_s
        args = (work, todo, found, errors)
        threads = [threading.Thread(target=self._work, args=args, name="reader", daemon=True) for _ in range(min(self._count, len(todo)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        # Those that hang go on to nothing else when they return.
        todo.clear()
        if errors:
            raise errors[0]
        return dict(found)

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
            except Exception as error:  # noqa: BLE001 - raised by `read`, in the thread that asked
                errors.append(error)
            finally:
                with self._lock:
                    self._under_way.discard(key)
