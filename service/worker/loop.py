"""A thread that should run until its service stops. An error in one round does not end the thread; if it ends, it is reported."""

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
        """`target` returns only after `stopping` is set. It beats in each round, at least every `interval_s`."""
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
        return LoopDied(thread=self.thread.name, reason=self._reason or "the thread ended without an error")

    def _run(self) -> None:
        try:
            self._target(self._heartbeat)
        except BaseException as error:
            # The edge of the thread: an error that is not reported here is not reported at all.
            _logger.critical("loop_died", thread=self.thread.name, exc_info=True)
            self._died(f"{type(error).__name__}: {error}")
        else:
            if not self._stopping.is_set():
                _logger.critical("loop_died", thread=self.thread.name)
                self._died("the thread returned, but the service is not stopping")

    def _died(self, reason: str) -> None:
        metrics.LOOPS_DIED.labels(thread=self.thread.name).inc()
        self._reason = reason


@contextmanager
def surviving(database: Absence) -> Iterator[None]:
    """One round of a loop. After any error the next round comes, because a worker without its loops keeps no leases and claims no jobs."""
    try:
        yield
        database.note(None)
    except DatabaseUnavailable as error:
        database.note(error)
    except Exception:
        # The edge of the thread.
        _logger.exception("worker_loop_failed")
