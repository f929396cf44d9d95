"""The jobs that this worker runs or recovers. Each has one thread of its own."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service import metrics
from service.jobs.run import JobRun


@dataclass(frozen=True)
class _LiveJob:
    """`run` None: the job is being recovered. `is_look`: the host was forgotten, and a look at the job's guest is under way."""

    thread: threading.Thread
    run: JobRun | None
    is_look: bool

    def set_deadline(self, at: float | None) -> None:
        if self.run is not None:
            self.run.ends_at = at


class LiveJobs:
    def __init__(self) -> None:
        self._jobs: dict[str, _LiveJob] = {}
        self._lock = threading.Lock()
        self._ends_at: float | None = None

    def start(self, job_id: str, run: JobRun | None, work: Callable[[], None], *, is_look: bool = False) -> None:
        """Run `work` in a thread, unless this job has a thread already: two recoveries of one job must not run. `work` calls `ended`."""
        with self._lock:
            if job_id in self._jobs:
                return
            thread = threading.Thread(target=work, name=f"job-{job_id[:8]}", daemon=True)
            self._jobs[job_id] = live = _LiveJob(thread, run, is_look)
            live.set_deadline(self._ends_at)
        metrics.JOBS_RUNNING.inc()
        thread.start()

    def ended(self, job_id: str) -> None:
        with self._lock:
            del self._jobs[job_id]
        metrics.JOBS_RUNNING.dec()

    def ids(self) -> list[str]:
        with self._lock:
            return list(self._jobs)

    def runs(self) -> list[JobRun]:
        """The runs that still have their lease."""
        with self._lock:
            return [live.run for live in self._jobs.values() if live.run is not None and not live.run.lease_lost.is_set()]

    def busy_domains(self) -> frozenset[str]:
        with self._lock:
            domains = (live.run.claim.domain_id for live in self._jobs.values() if live.run is not None)
            return frozenset(domain_id for domain_id in domains if domain_id is not None)

    def has_looks(self) -> bool:
        """Whether a look at a forgotten job is under way."""
        with self._lock:
            return any(live.is_look for live in self._jobs.values())

    def end_at(self, deadline: float) -> float:
        """Tell all jobs when the worker leaves them to recovery (time.monotonic). Returns the deadline: only the first call sets one."""
        with self._lock:
            self._ends_at = self._ends_at or deadline
            for live in self._jobs.values():
                live.set_deadline(self._ends_at)
            return self._ends_at

    def join(self, deadline: float) -> bool:
        """Wait for the threads that run now. False: some did not end in time."""
        with self._lock:
            running = [live.thread for live in self._jobs.values()]
        for thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in running)
