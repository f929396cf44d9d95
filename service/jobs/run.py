"""One running job: its phases, its fenced writes, and the safe points at which it can be cancelled."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from service import log, metrics
from service.clock import WallClock, rfc3339
from service.db.engine import Database, database_now
from service.errors import DatabaseUnavailable, JobCancelled, LeaseLost, StillpointError
from service.freeze.windows_evidence import VssEvidence
from service.jobs.ending import Ending
from service.model.foreign_freeze import ForeignFreeze
from service.model.inventory import Survey
from service.model.lifecycle import PhaseName, PhaseOutcome
from service.model.origin import POLICY_LABEL
from service.model.progress import progress_document, waiting_document
from service.model.timing import WindowInstants, ms_between
from service.model.windows.drift import Change
from service.model.windows.vss_outcome import RETRY_PAUSE_S
from service.records import freeze_lease, guest_memory, points, policy_limits, queue, raw_texts
from service.records.guest_memory import Remembered
from service.records.queue import Claim
from service.records.raw_texts import Texts

T = TypeVar("T")
R = TypeVar("R")

WRITE_PAUSE_S = 0.2
"""Seconds before a failed write is tried again. The pause doubles with each try."""
PROGRESS_PAUSE_S = 1.0
"""Seconds between two writes of a job's progress. What comes between them is not written."""
LOOK_S = 0.2
"""Seconds between two calls of `while_waiting` during such a pause."""
WRITE_PAUSE_MAX_S = 5.0
"""Seconds at which the pause stops to grow. There is no limit to the number of tries."""

_logger = log.get(__name__)


class MustRecover(StillpointError):
    """This worker does not know the state of the disks. It gives up the job's lease, and recovery looks again."""

    code = "must_recover"
    title = "The state of the disks could not be read"
    detail_template = "{what}"
    remedy_template = "Recovery continues by itself as soon as libvirt answers."


def nothing() -> None:
    """Nothing is looked at while a write waits."""


class Phase:
    """A phase that runs. The work in the phase can set its outcome."""

    def __init__(self, name: PhaseName) -> None:
        self.name = name
        self.started_at = datetime.now(UTC)
        self.started_ns = time.monotonic_ns()
        self.outcome = PhaseOutcome.ok
        self.detail: str | None = None

    def warn(self, detail: str) -> None:
        self.outcome, self.detail = PhaseOutcome.warning, detail

    def fail(self, detail: str) -> None:
        self.outcome, self.detail = PhaseOutcome.failed, detail

    def as_document(self, ended_ns: int | None = None) -> dict[str, Any]:
        return {
            "name": self.name.value,
            "started_at": rfc3339(self.started_at),
            "duration_ms": ms_between(self.started_ns, ended_ns or time.monotonic_ns()),
            "outcome": self.outcome.value,
            "detail": self.detail,
        }


class JobRun:
    """The claim of one job in one worker. All writes carry the lease token; a lost lease raises LeaseLost."""

    def __init__(self, claim: Claim, database: Database, abandoned: threading.Event, shortfall_pause_s: float = RETRY_PAUSE_S) -> None:
        self.claim = claim
        self.shortfall_pause_s = shortfall_pause_s
        #: Begins with the phases of earlier attempts, so that a job shows all of its phases.
        self.phases: list[dict[str, Any]] = list(claim.phases)
        # The worker's renewal thread sets these two.
        self.cancel_requested = threading.Event()
        self.lease_lost = threading.Event()
        if claim.is_cancelled:
            self.cancel_requested.set()
        self.ended = threading.Event()
        #: From the last write before the window to the last write of the job.
        self.may_have_point = False
        #: When a stopping worker leaves its jobs to recovery (time.monotonic). None: the worker is not stopping.
        self.ends_at: float | None = None
        #: Called while a write waits for the database. What it raises ends the wait: the guest cannot wait for a database.
        self.while_waiting: Callable[[], None] = nothing
        self._database = database
        self._abandoned = abandoned
        self._progress_at: float | None = None
        self._progress_of: tuple[str, str | None] | None = None
        self._progress: dict[str, Any] | None = None
        #: The guest was thawed, and the permit of its window is not given back yet.
        self._has_spare_window = False

    def request(self, form: type[R]) -> R:
        """The request of the job. The handler of a kind gets only requests of its kind."""
        assert isinstance(self.claim.request, form)
        return self.claim.request

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[Phase]:
        """A phase outside the freeze window: a safe point, then the work, then its record. Errors pass through."""
        self.safe_point(name)
        self._progress = None
        self.write({"phase": name.value, "progress": None})
        with self.phase_that_cannot_be_cancelled(name) as phase:
            yield phase

    @contextmanager
    def phase_that_cannot_be_cancelled(self, name: PhaseName) -> Iterator[Phase]:
        """Like `phase`, for use after the window: the point is judged and recorded even if the job was cancelled meanwhile."""
        phase = Phase(name)
        try:
            yield phase
        except StillpointError as error:
            phase.fail(error.detail)
            raise
        finally:
            self.phases.append(phase.as_document())

    def safe_point(self, name: PhaseName) -> None:
        """Raises JobCancelled or LeaseLost. Call this only when nothing is frozen and nothing is half made."""
        if self.lease_lost.is_set():
            raise LeaseLost(job_id=self.claim.job_id)
        if self.cancel_requested.is_set():
            raise JobCancelled(phase=name.value)

    def point_is_pending(self) -> None:
        """Call this before the window. From here on no error may end the job as if nothing had been frozen or taken.

        `finish` clears the mark.
        """
        self.may_have_point = True

    def add_window_phases(
        self, instants: WindowInstants, outcomes: Mapping[PhaseName, tuple[PhaseOutcome, str | None]], wall: WallClock
    ) -> None:
        """The phases inside the window are recorded after it, from their instants."""
        self._has_spare_window = POLICY_LABEL in self.claim.labels
        spans = {
            PhaseName.freeze: (instants.freeze_sent, instants.freeze_reply),
            PhaseName.point_in_time: (instants.point_sent, instants.point_done),
            PhaseName.thaw: (instants.thaw_sent, instants.thaw_reply),
        }
        for name, (start, end) in spans.items():
            if start is None:
                continue
            outcome, detail = outcomes[name]
            self.phases.append(
                {
                    "name": name.value,
                    "started_at": rfc3339(wall.at(start)),
                    "duration_ms": ms_between(start, end),
                    "outcome": outcome.value,
                    "detail": detail,
                }
            )

    def remember(self, survey: Survey, evidence: VssEvidence) -> list[Change]:
        """Store the facts of this guest, and return what changed since the last job. Waits while the database is unavailable."""
        known = self.in_transaction(lambda session: self._remembered(session, survey, evidence))
        evidence.known_writers = known.writers
        return known.changes

    def foreign_freeze(self) -> ForeignFreeze:
        """What is known about a freeze that was there before this job."""
        try:
            with self._database.read() as session:
                return freeze_lease.foreign_freeze(session, self.claim.guest_id, self.claim.host_id, self.claim.job_id)
        except DatabaseUnavailable:
            # The job itself saw that the guest is frozen. That is enough to refuse the guest.
            return ForeignFreeze(rfc3339(datetime.now(UTC)))

    @property
    def database(self) -> Database:
        return self._database

    def in_transaction(self, work: Callable[[Session], T]) -> T:
        """Do `work` in a transaction of its own, for rows other than the job's. Waits while the database is unavailable."""
        return self._persist(lambda: self._transaction(work))

    def write(self, values: dict[str, Any], texts: Texts | None = None) -> None:
        """The values are committed when this returns. Waits while the database is unavailable, so that no evidence is lost.

        `texts`: raw texts of the job's evidence, committed together with the values.
        """
        self._persist(lambda: self._write(values, texts))

    def write_if_possible(self, values: dict[str, Any], texts: Texts | None = None) -> bool:
        """Like `write`, but tries once. False: the database is unavailable. Raises LeaseLost."""
        try:
            self._write(values, texts)
        except DatabaseUnavailable as error:
            _logger.warning("database_away", detail=error.detail)
            return False
        return True

    def write_now(self, values: Callable[[datetime], dict[str, Any]]) -> None:
        """Like `write`, for values that contain the time: `values` gets the time of the database's clock."""
        self._persist(lambda: self._write_with_time(values))

    def progress(
        self, phase: PhaseName, done_bytes: int, total_bytes: int | None, rate_bytes_s: float | None = None, *, disk: str | None = None
    ) -> None:
        """How far a phase that copies or reads has come. Written at most once a second; nobody waits for the database. Raises LeaseLost."""
        now, subject = time.monotonic(), (phase.value, disk)
        if subject == self._progress_of and self._progress_at is not None and now - self._progress_at < PROGRESS_PAUSE_S:
            return
        self._progress_at, self._progress_of = now, subject
        self._progress = progress_document(phase.value, disk, done_bytes, total_bytes, rate_bytes_s)
        self._show_progress(self._progress)

    def waits(self, phase: PhaseName, error: StillpointError, since: datetime, until: datetime) -> None:
        """The job shows that it waits, as what `error` says may pass, and when it gives up. Raises LeaseLost."""
        so_far = self._progress
        if so_far is None or so_far["phase"] != phase.value:
            so_far = progress_document(phase.value, None, 0, None, None)
        self._show_progress(waiting_document(so_far, error, since, until))

    def waits_no_longer(self) -> None:
        """Raises LeaseLost."""
        self._progress_at = None
        self._show_progress(self._progress)

    def _show_progress(self, document: dict[str, Any] | None) -> None:
        try:
            with self._database.write() as session:
                queue.write(session, self.claim.job_id, self.claim.lease_token, {"progress": document})
        except DatabaseUnavailable as error:
            _logger.warning("progress_not_written", reason=error.detail)

    def finish(self, ending: Ending) -> None:
        """The last write: state, outcome, recovery point and the job that follows, in one transaction.

        If a caller asked to cancel the job, no job follows.
        """
        self._persist(lambda: self._finish(ending))
        self.ended.set()
        self.may_have_point = False
        self._database.bells.ring(self.claim.job_id)
        verdict = ending.judgement.verdict.value if ending.judgement else None
        metrics.count_job(self.claim.kind, ending.state.value, verdict)
        _logger.info("job_finished", state=ending.state.value, verdict=verdict, error=ending.error.code if ending.error else None)

    def leave_to_recovery(self, why: MustRecover) -> None:
        """End the lease now, so that recovery need not wait until the lease expires."""
        self._persist(lambda: self._end_lease(why))

    def _remembered(self, session: Session, survey: Survey, evidence: VssEvidence) -> Remembered:
        return guest_memory.remember(session, self.claim.guest_id, survey, evidence.option, evidence.before.report)

    def _transaction(self, work: Callable[[Session], T]) -> T:
        with self._database.write() as session:
            return work(session)

    def _write_with_time(self, values: Callable[[datetime], dict[str, Any]]) -> None:
        with self._database.write() as session:
            written = {**values(database_now(session)), "phases": list(self.phases)}
            queue.write(session, self.claim.job_id, self.claim.lease_token, written)

    def _write(self, values: dict[str, Any], texts: Texts | None) -> None:
        with self._database.write() as session:
            queue.write(session, self.claim.job_id, self.claim.lease_token, {**values, "phases": list(self.phases)})
            raw_texts.keep(session, self.claim.job_id, self.claim.attempt, texts or {})
            if self._has_spare_window:
                policy_limits.window_is_over(session, self.claim.job_id)
        self._has_spare_window = False

    def _finish(self, ending: Ending) -> None:
        values = {**ending.columns(), "phases": list(self.phases)}
        with self._database.write() as session:
            if ending.next_try is not None and not queue.is_cancel_requested(session, self.claim.job_id):
                follower = queue.enqueue(session, ending.next_try)
                next_try = {"job_id": follower.job_id, "run_after": rfc3339(follower.run_after)}
                values["result"] = {**(ending.result or {}), "next_try": next_try}
            # Before the texts and the point, because this raises LeaseLost if the job was lost. Then nothing is written.
            queue.finish(session, self.claim.job_id, self.claim.lease_token, ending.state, values)
            raw_texts.keep(session, self.claim.job_id, self.claim.attempt, ending.texts)
            if ending.point is not None:
                points.add(session, ending.point, database_now(session))

    def _end_lease(self, why: MustRecover) -> None:
        with self._database.write() as session:
            queue.write(session, self.claim.job_id, self.claim.lease_token, {"error": why.as_document(), "phases": list(self.phases)})
            queue.renew(session, self.claim.job_id, self.claim.lease_token, 0)

    def _persist(self, write: Callable[[], T]) -> T:
        pause = WRITE_PAUSE_S
        while True:
            try:
                return write()
            except DatabaseUnavailable as error:
                if self._abandoned.is_set():
                    raise
                _logger.warning("database_away", detail=error.detail, again_in_s=pause)
            self._pause(pause)
            pause = min(pause * 2, WRITE_PAUSE_MAX_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._abandoned.wait(min(left, LOOK_S)):
            self.while_waiting()
