"""A thread that should run until its service stops, what keeps it running, and what is told when it ends all the same."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service import log, metrics
from service.errors import DatabaseUnavailable, LoopDied, LoopHangs
from service.heartbeat import Heartbeat
from service.worker.absence import Absence

_logger = log.get(__name__)


class Loop:
    def __init__(self, name: str, target: Callable[[Heartbeat], None], stopping: threading.Event, interval_s: float) -> None:
        """`target` returns when `stopping` is set, and only then; it beats in each turn, of which one comes every `interval_s`."""
        self._heartbeat = Heartbeat(name, interval_s)
        metrics.watch(self._heartbeat)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._target = target
        self._stopping = stopping
        self._reason: str | None = None

    def start(self) -> None:
        self.thread.start()

    def join(self, timeout_s: float) -> None:
        self.thread.join(timeout_s)

    def problem(self) -> LoopDied | LoopHangs | None:
        if self._reason is None and self._stopping.is_set():
            return None
        if self._reason is None and self.thread.is_alive():
            return self._heartbeat.problem()
        return LoopDied(thread=self.thread.name, reason=self._reason or "it ended without a word")

    def _run(self) -> None:
        try:
            self._target(self._heartbeat)
        except BaseException as error:
            # The edge of the thread: whatever ends it is told here or nowhere.
            _logger.critical("loop_died", thread=self.thread.name, exc_info=True)
            self._died(f"{type(error).__name__}: {error}")
        else:
            if not self._stopping.is_set():
                _logger.critical("loop_died", thread=self.thread.name)
                self._died("it returned though nobody had stopped it")

    def _died(self, reason: str) -> None:
        metrics.LOOPS_DIED.labels(thread=self.thread.name).inc()
        self._reason = reason


@contextmanager
def surviving(database: Absence) -> Iterator[None]:
    """One round of a loop. Whatever goes wrong in it, the next round comes: a worker without leases or claims is a dead one."""
    try:
        yield
        database.note(None)
    except DatabaseUnavailable as error:
        database.note(error)
    except Exception:
        # The edge of the thread.
        _logger.exception("worker_loop_failed")
