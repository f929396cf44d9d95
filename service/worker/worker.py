"""The worker of a host: claims its jobs, runs each in a thread, renews their leases, and gives lost jobs to recovery."""

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from service import log, metrics
from service.config import Settings
from service.db.engine import Database
from service.errors import DatabaseUnavailable, HostTaken, LeaseLost, StillpointError
from service.freeze.guard import GuardSource
from service.heartbeat import Heartbeat
from service.hypervisor.connection import HostConnection
from service.jobs.kind import Handlers, Host
from service.jobs.run import JobRun
from service.model.foreign_freeze import FOREIGN_FREEZE_POLL_S
from service.model.kinds import kind_of
from service.records import queue, slots
from service.records.wake import Wake
from service.worker import left_backup_folders
from service.worker.absence import Absence
from service.worker.execution import Execution
from service.worker.host_lock import HostLock, LockId
from service.worker.libvirt_events import LibvirtEvents
from service.worker.live_jobs import LiveJobs
from service.worker.loop import Loop, surviving
from service.worker.publishing import Inventory
from service.worker.recovery import Recovery
from service.worker.registration import REPORT_S, Registration, Terms
from service.worker.repository_watch import RepositoryWatch
from service.worker.returned_host import ReturnedHost
from service.worker.state_folder import StateFolder

RECONNECT_S = 1.0
"""Seconds between two publications while libvirt does not answer."""
STOP_LOOPS_S = 5.0
"""Seconds that a stop waits for the loops of the worker. After that the process ends without waiting for them."""
SWITCH_INTERVAL_S = 0.001
"""Seconds that a thread may hold the interpreter while other threads wait. Then it must give the interpreter up."""
LONGEST_RENEWAL_S = REPORT_S
"""Seconds between two renewals of a lease at most. Cancel requests are seen at a renewal, so a long lease is renewed early."""
EVENT_SETTLE_S = 0.2
"""Seconds to wait after an event of libvirt. Events come in bursts (a start is three), and one publication serves them all."""

_logger = log.get(__name__)


class Worker:
    """Four threads (claims, leases, inventory, repositories), one for each running job. One worker per host: lock file and database."""

    def __init__(
        self, settings: Settings, database: Database, connection: HostConnection, wake: Wake, guards: GuardSource, *, handlers: Handlers
    ) -> None:
        self._settings = settings
        self._database = database
        self._connection = connection
        self._wake = wake
        self._host_id = settings.host_id
        self._owner = f"{settings.host_id}:{os.getpid()}"
        terms = Terms(settings.lease_seconds, settings.inventory_seconds, connection.uri)
        self._registration = Registration(settings.host_id, terms)
        self._publish = threading.Event()
        self._inventory = self._new_inventory()
        host = Host(connection.guest, connection.guests, guards, connection)
        self._execution = Execution(host, handlers)
        self._recovery = Recovery(database, connection, host, handlers, state_dir=settings.state_dir)
        #: A newer API may create jobs of other kinds. Those wait until this worker is restarted with the newer version.
        self._kinds = tuple(handlers)
        self._returned = ReturnedHost(database, connection, settings.host_id, settings.state_dir)
        self._stopping = threading.Event()
        self._watch = RepositoryWatch(
            database, settings.host_id, self._stopping, every_s=settings.repository_look_seconds, is_mine=self._registration.holds
        )
        self._abandoned = threading.Event()
        self._libvirt_answers = threading.Event()
        self._libvirt_log = Absence("libvirt")
        self._events = LibvirtEvents()
        self._state_folder = StateFolder(settings.state_dir)
        self._live = LiveJobs()
        self._loops: list[Loop] = []
        self._lock = HostLock(settings.state_dir, settings.host_id)
        self._lock_id: LockId | None = None
        #: Cleared while another worker has this host; `_taken` says which.
        self._registered = threading.Event()
        self._taken: HostTaken | None = None

    def _new_inventory(self) -> Inventory:
        return Inventory(
            self._database,
            self._connection,
            self._host_id,
            inventory_seconds=self._settings.inventory_seconds,
            has_job=lambda domain_id: domain_id in self._live.busy_domains(),
            is_mine=self._registration.holds,
            must_begin_again=self._publish.is_set,
        )

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Become the worker of the host, give the jobs of a dead worker to recovery, and begin.

        Raises WorkerAlreadyRuns, HostTaken, DatabaseUnavailable.
        """
        self._lock_id = self._lock.take()
        # A thread in a freeze window must not wait its turn for long while the API is busy; Python's default is 5 ms.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._connection.on_change(self._publish.set)
        try:
            with self._database.write() as session:
                left = self._register(session, self._lock_id)
        except StillpointError:
            self._lock.release()
            raise
        self._registered.set()
        if left:
            _logger.warning("jobs_left_by_a_dead_worker", jobs=left)
        left_backup_folders.sweep(self._database, self._settings.state_dir)
        targets = (self._claim_loop, self._lease_loop, self._inventory_loop, self._repository_loop)
        intervals = (self._settings.poll_seconds, self._renewal_s, self._settings.inventory_seconds, self._settings.poll_seconds)
        named = zip(metrics.LOOPS, targets, intervals, strict=True)
        self._loops = [Loop(name, target, self._stopping, interval_s) for name, target, interval_s in named]
        for loop in self._loops:
            loop.start()

    def _register(self, session: Session, lock: LockId) -> list[str]:
        """Returns the jobs that an earlier worker of the host left. Raises HostTaken."""
        self._registration.take(session, lock)
        mine = self._live.ids()
        # Before the number of slots is set, because this frees the slots of a dead worker.
        left = queue.release_expired(session, self._host_id, all_running=True, live=mine)
        slots.ensure_lanes(session, self._host_id, self._settings.jobs_per_host, self._settings.transfers_per_host)
        return left

    def stop(self, timeout_seconds: float) -> bool:
        """Claim nothing more, and wait for the running jobs. False: some did not end in time, and are recovered at the next start."""
        all_ended = self.wind_down(timeout_seconds)
        self._abandoned.set()
        deadline = time.monotonic() + STOP_LOOPS_S
        for loop in self._loops:
            loop.join(max(0.0, deadline - time.monotonic()))
        self._connection.close()
        self._leave_host()
        return all_ended

    def wind_down(self, timeout_seconds: float) -> bool:
        """The first half of a stop: the jobs end, and their leases are renewed meanwhile. The limit of the first call counts."""
        self._stopping.set()
        self._wake.wake()
        self._publish.set()
        deadline = self._live.end_at(time.monotonic() + timeout_seconds)
        # The claim loop first, because it starts the job that it has just claimed. That job is then waited for, too.
        for loop in self._loops[:1]:
            loop.join(max(0.0, deadline - time.monotonic()))
        return self._live.join(deadline)

    @property
    def has_host(self) -> bool:
        """False while another worker has the host. This worker then claims nothing."""
        return self._registered.is_set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def problem(self) -> StillpointError | None:
        """The problem that stops this worker from working now."""
        died = next((problem for loop in self._loops if (problem := loop.problem()) is not None), None)
        return died or self._events.problem() or self._taken or self._state_folder.problem() or self._inventory.away

    def _leave_host(self) -> None:
        try:
            with self._database.write() as session:
                self._registration.release(session)
        except DatabaseUnavailable as error:
            # The next worker with this lock file need not wait, even without the release.
            _logger.warning("database_away", detail=error.detail)
        self._lock.release()

    # --- claiming -------------------------------------------------------------------------------

    def _claim_loop(self, heartbeat: Heartbeat) -> None:
        database = Absence("database")
        while not self._stopping.is_set():
            heartbeat.beat()
            with surviving(database):
                if self._libvirt_answers.is_set() and self._registered.is_set():
                    self._recover_interrupted()
                    self._look_at_forgotten()
                    self._claim_all()
            self._wake.wait(self._settings.poll_seconds)

    def _claim_all(self) -> None:
        while not (self._stopping.is_set() or self._live.has_looks()):
            with self._database.read() as session:
                kind = queue.next_kind(session, self._host_id, only_kinds=self._kinds)
            if kind is None:
                return
            with self._database.write(urgent=kind_of(kind).is_urgent) as session:
                claim = queue.claim(session, self._host_id, self._owner, self._settings.lease_seconds, only_kinds=self._kinds)
                if claim is not None and not self._registration.holds(session):
                    session.rollback()
                    return
            if claim is None:
                return
            run = JobRun(claim, self._database, self._abandoned, self._settings.shortfall_pause_seconds)
            self._start(claim.job_id, run, partial(self._execution.execute, run))

    def _recover_interrupted(self) -> None:
        with self._database.read() as session:
            waiting = [job.id for job in queue.interrupted(session, self._host_id) if self._recovery.is_due(job.id)]
        for job_id in waiting:
            self._start(job_id, None, partial(self._recovery.recover, job_id))

    def _look_at_forgotten(self) -> None:
        """Call this before jobs are claimed, because a late thaw would end the freeze of a new job."""
        for job_id in self._returned.due():
            self._start(job_id, None, partial(self._returned.look, job_id), is_look=True)

    def _start(self, job_id: str, run: JobRun | None, work: Callable[[], None], *, is_look: bool = False) -> None:
        self._live.start(job_id, run, partial(self._in_thread, job_id, work), is_look=is_look)

    def _in_thread(self, job_id: str, work: Callable[[], None]) -> None:
        try:
            work()
        except StillpointError as error:
            # The database or libvirt stayed away. The lease expires, and recovery takes the job.
            _logger.error("job_abandoned", job_id=job_id, code=error.code, detail=error.detail)
        finally:
            self._live.ended(job_id)
            self._publish.set()
            self._wake.wake()

    # --- leases ---------------------------------------------------------------------------------

    @property
    def _renewal_s(self) -> float:
        return min(self._settings.lease_seconds / 3, LONGEST_RENEWAL_S)

    def _lease_loop(self, heartbeat: Heartbeat) -> None:
        database = Absence("database")
        while not self._abandoned.wait(self._renewal_s):
            heartbeat.beat()
            with surviving(database):
                self._state_folder.problem()
                for run in self._live.runs():
                    self._renew(run)
                if self._report():
                    self._release_expired()

    def _report(self) -> bool:
        """Report that this worker lives. False: another worker has the host. Running jobs notice that by their leases."""
        with self._database.write() as session:
            if self._registration.report(session):
                return True
            self._registered.clear()
            assert self._lock_id is not None
            try:
                left = self._register(session, self._lock_id)
            except HostTaken as error:
                if self._taken is None:
                    _logger.error("host_taken", detail=error.detail, remedy=error.remedy)
                self._taken = error
                return False
        self._registered.set()
        self._taken = None
        _logger.warning("host_registered_again", host=self._host_id, jobs=left)
        self._publish.set()
        self._wake.wake()
        return True

    def _renew(self, run: JobRun) -> None:
        try:
            with self._database.write() as session:
                if queue.renew(session, run.claim.job_id, run.claim.lease_token, self._settings.lease_seconds):
                    run.cancel_requested.set()
        except LeaseLost:
            if not run.ended.is_set():
                metrics.LEASES_LOST.inc()
                run.lease_lost.set()

    def _release_expired(self) -> None:
        mine = self._live.ids()
        with self._database.write() as session:
            released = queue.release_expired(session, self._host_id, live=mine, longest_s=self._settings.lease_seconds)
        if released:
            _logger.warning("leases_expired", jobs=released)
            self._wake.wake()

    # --- the host as the API sees it ------------------------------------------------------------

    def _inventory_loop(self, heartbeat: Heartbeat) -> None:
        database = Absence("database")
        while not self._stopping.is_set():
            heartbeat.beat()
            self._publish.clear()
            with surviving(database):
                self._publish_host()
            if self._wait_for_change(database):
                # Events come in bursts, and one publication serves them all.
                time.sleep(EVENT_SETTLE_S)

    def _wait_for_change(self, database: Absence) -> bool:
        """False: the next publication is due. A guest that another client has frozen is asked often, because its jobs are refused."""
        due = time.monotonic() + self._pause()
        while (left := due - time.monotonic()) > 0:
            if self._publish.wait(min(left, FOREIGN_FREEZE_POLL_S) if self._inventory.sees_foreign_freezes else left):
                return True
            with surviving(database):
                if not self._inventory.look_again(self._live.busy_domains()):
                    return True
        return False

    def _publish_host(self) -> None:
        busy = self._live.busy_domains()
        # Before the agents are asked, because jobs must not wait for guests that do not answer.
        self._note_libvirt(self._inventory.libvirt_answers())
        self._note_libvirt(self._inventory.publish(busy))

    def _note_libvirt(self, answers: bool) -> None:
        self._libvirt_log.note(self._inventory.away)
        if not answers:
            self._libvirt_answers.clear()
        elif not self._libvirt_answers.is_set():
            self._libvirt_answers.set()
            self._wake.wake()

    def _pause(self) -> float:
        return self._settings.inventory_seconds if self._libvirt_answers.is_set() else RECONNECT_S

    # --- repositories ---------------------------------------------------------------------------

    def _repository_loop(self, heartbeat: Heartbeat) -> None:
        database = Absence("database")
        while not self._stopping.is_set():
            heartbeat.beat()
            with surviving(database):
                self._look_at_repositories()
            self._stopping.wait(self._settings.poll_seconds)
        self._watch.stop()

    def _look_at_repositories(self) -> None:
        if self._registered.is_set():
            self._watch.look_at_due()
