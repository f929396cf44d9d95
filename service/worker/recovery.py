"""Recovers jobs whose worker died. libvirt and the agent are asked what is true before anything is decided (lifecycle e, f, g, i).

If a guest may be frozen and cannot be thawed now, its job stays `interrupted`. The job says what it waits for, and recovery looks again
until the guest is thawed or shut off. The job also stays `interrupted` while libvirt may still move its disks.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import log, metrics
from service.clock import rfc3339
from service.db.engine import Database, database_now
from service.db.tables import Job
from service.errors import DomainGone, JobCancelled, KindUnknown, RecordUnreadable, StillpointError, VersionUnknown, WorkerLost
from service.freeze import after_death, guard_report
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.jobs import interrupted_disks
from service.jobs.ending import judgement_columns, point_document
from service.jobs.kind import Handlers, Host, LostJob, Resolution
from service.jobs.run import MustRecover
from service.model import requests, story
from service.model.intent import Intent
from service.model.lifecycle import JobState, PhaseName, PhaseOutcome
from service.model.window import GuardReport
from service.records import points, queue
from service.records.following_thaw import thaw_after
from service.worker import moved_guest
from service.worker.recovery_schedule import Schedule

THAW_PATIENCE_S = 30.0
"""Seconds for which one look repeats an unanswered thaw. The next look continues."""
GUARD_FIRST_WAIT_S = 0.2
"""Seconds that recovery waits for the guard before it thaws the guest itself. A guard that works needs less; a guard that hangs must not
delay the thaw."""
GUARD_PATIENCE_S = 3.0
"""Seconds that recovery waits for the guard's report after the thaw. A guard that thawed watches the guest for 2 s, and then writes."""

_logger = log.get(__name__)


@dataclass
class _Look:
    """One look at a lost job."""

    lost: LostJob
    report: GuardReport | None
    #: A newer version made the job. This version thaws the guest, and leaves the rest of the job's intent to the newer version.
    unreadable: StillpointError | None = None
    #: The error by which libvirt said that the domain is not on this host any more.
    gone: DomainGone | None = None
    #: The domain may have moved to another host while it was frozen. Then a job there thaws it.
    moved_frozen: bool = False
    #: The problem that must end before the job can be resolved.
    waits_for: StillpointError | None = None
    resolution: Resolution = field(default_factory=Resolution)

    @property
    def job(self) -> Job:
        return self.lost.job

    @property
    def story(self) -> list[str]:
        return self.lost.story

    @property
    def error(self) -> StillpointError | None:
        """The error that ends the job. None: the job is tried again."""
        if self.resolution.is_tried_again and self.job.attempt < self.job.max_attempts:
            return None
        return self.resolution.error or self.gone or WorkerLost(story=" ".join(self.story).rstrip("."))


class Recovery:
    """`state_dir`: the folder of the reports of this host's thaw guards. None: this host has no guards."""

    def __init__(
        self,
        database: Database,
        connection: HostConnection,
        host: Host,
        handlers: Handlers,
        *,
        thaw_patience_s: float = THAW_PATIENCE_S,
        state_dir: Path | None = None,
    ) -> None:
        self._database = database
        self._connection = connection
        self._host = host
        self._handlers = handlers
        self._thaw_patience_s = thaw_patience_s
        self._state_dir = state_dir
        self._schedule = Schedule()
        connection.on_change(self._schedule.make_all_due)

    def is_due(self, job_id: str) -> bool:
        """False: recovery looked at the job lately, nothing has happened on the host since then, and the pause is not over."""
        return self._schedule.is_due(job_id)

    def recover(self, job_id: str) -> None:
        """Thaw the guest, look at the disks, and decide. Raises LibvirtUnavailable or DatabaseUnavailable: call this again later then."""
        # Before anything that can fail, so that a failure is not repeated at once.
        self._schedule.put_off(job_id)
        with self._database.read() as session:
            job = session.get(Job, job_id)
        if job is None or job.state != JobState.interrupted:
            self._schedule.forget(job_id)
            return
        report = self._guard(job_id, GUARD_FIRST_WAIT_S)
        unreadable = self._why_unreadable(job)
        intent = Intent.from_document(job.intent) if unreadable is None else Intent.freeze_of(job.intent)
        look = _Look(LostJob(job, intent, self._database), report, unreadable)
        self._look(look)
        if look.waits_for is not None:
            self._note(look, look.waits_for)
            return
        if report is not None and report.is_alive:
            look.report = self._guard(job_id, GUARD_PATIENCE_S)
            if look.report is not None and look.report.state is not report.state:
                look.story.append(guard_report.as_sentence(look.report))
        self._resolve(look)
        if look.report is not None and look.report.reason is not None:
            metrics.GUARD_INTERVENTIONS.labels(reason=look.report.reason.value).inc()
        self._end_guard(job_id)
        self._schedule.forget(job_id)

    def _end_guard(self, job_id: str) -> None:
        if self._state_dir:
            # The guest is thawed or shut off by now. A guard that still tried to thaw would end the next freeze.
            if guard_report.end(self._state_dir, job_id, 0.0):
                guard_report.remove(self._state_dir, job_id)
            else:
                # The report stays, so that the next window of this guest can find the guard.
                _logger.error("guard_does_not_end", job_id=job_id)

    def _guard(self, job_id: str, patience_s: float) -> GuardReport | None:
        """The report of the job's guard. Waits up to `patience_s` for a guard that is alive, because its reply is evidence."""
        if self._state_dir is None:
            return None
        deadline = time.monotonic() + patience_s
        while (report := guard_report.read(self._state_dir, job_id)) is not None and report.is_alive and time.monotonic() < deadline:
            time.sleep(guard_report.POLL_S)
        return report

    def _look(self, look: _Look) -> None:
        look.story.append(_beginning(look.job))
        if look.report is not None:
            look.story.append(guard_report.as_sentence(look.report))
        try:
            look.lost.guest = self._guest_at_rest(look)
        except DomainGone as error:
            _note_gone(look, error)
        look.waits_for = look.waits_for or look.unreadable
        if look.waits_for is not None:
            return
        if look.lost.guest is not None:
            _tell_waiting(look)
        look.resolution = self._resolution(look)
        if look.resolution.is_tried_again and look.error is not None:
            look.story.append(story.LAST_ATTEMPT.format(attempts=look.job.max_attempts))

    def _why_unreadable(self, job: Job) -> StillpointError | None:
        if job.kind not in self._handlers:
            return KindUnknown(kind=job.kind)
        try:
            Intent.from_document(job.intent)
            requests.read(job.kind, job.request, job.request_version)
        except (VersionUnknown, RecordUnreadable) as error:
            return error
        return None

    def _guest_at_rest(self, look: _Look) -> Guest | None:
        """The guest, thawed, and with disks that nothing can move. None: the domain went to another host, or there is none.

        Raises DomainGone.
        """
        lost = look.lost
        if lost.job.domain_id is None:
            return None
        guest = self._connection.guest(lost.job.domain_id)
        if guest.was_migrated_away():
            look.story.append(story.MIGRATED)
            _tell_of_the_move(look)
            return None
        if lost.intent.will_freeze:
            may_have_fuse = requests.may_have_fuse(lost.job.request)
            look.waits_for = after_death.thaw(guest, lost.intent.instance, look.story, self._thaw_patience_s, may_have_fuse=may_have_fuse)
        else:
            after_death.report_foreign_freeze(guest, look.story)
        if look.waits_for is None:
            look.waits_for = interrupted_disks.what_may_move_disks(guest, lost.intent)
            if look.waits_for is not None:
                look.story.append(story.NOT_JUDGED_YET.format(why=look.waits_for.detail))
        return guest

    def _resolution(self, look: _Look) -> Resolution:
        handler = self._handlers[look.job.kind]
        try:
            return handler.recover(look.lost, self._host)
        except DomainGone as error:
            _note_gone(look, error)
            return handler.recover(look.lost, self._host)

    def _note(self, look: _Look, waits_for: StillpointError) -> None:
        """Write into the job's row what the job waits for. Only a change is written, not every look."""
        job, document = look.job, waits_for.as_document()
        if job.error is not None and job.error["code"] == document["code"]:
            return
        phases = [*_earlier(job), _phase(look, PhaseOutcome.warning, is_over=False)]
        with self._database.write() as session:
            queue.note_interrupted(session, job.id, {"error": document, "phases": phases, "evidence": _evidence(look)})
        if _waiting(job) is None:
            metrics.RECOVERIES.labels(outcome="waiting").inc()
        _logger.error("recovery_waits", job_id=job.id, code=waits_for.code, story=look.story)

    def _resolve(self, look: _Look) -> None:
        point = look.resolution.point
        with self._database.write() as session:
            if look.moved_frozen:
                look.story.append(thaw_after(session, look.job))
            to, values = _columns(look)
            resolved = queue.resolve_interrupted(session, look.job.id, to, values)
            if point is not None:
                points.add(session, point, database_now(session))
        label = _label(look.resolution, resolved)
        metrics.RECOVERIES.labels(outcome=label).inc()
        _logger.warning("job_recovered", job_id=look.job.id, outcome=label, story=look.story)


def _note_gone(look: _Look, error: DomainGone) -> None:
    look.story.append(error.detail)
    look.lost.guest, look.gone, look.waits_for = None, error, None
    _tell_of_the_move(look)


def _tell_of_the_move(look: _Look) -> None:
    look.story.extend(moved_guest.tell_of_files(look.lost.intent))
    look.moved_frozen = look.lost.intent.will_freeze and not (look.report is not None and look.report.is_settled)


def _columns(look: _Look) -> tuple[JobState, dict[str, Any]]:
    """The next state of the job, and the columns to write."""
    error, resolution = look.error, look.resolution
    to = JobState.failed if error is not None else JobState.queued
    if error is None and look.job.cancel_requested:
        to, error = JobState.cancelled, JobCancelled(phase="the next attempt")
    outcome = PhaseOutcome.failed if to is JobState.failed else PhaseOutcome.warning
    values: dict[str, Any] = {
        "phases": [*_earlier(look.job), _phase(look, outcome, is_over=True)],
        "phase": None,
        "error": error.as_document() if error is not None else None,
        "evidence": _evidence(look),
    }
    if to is JobState.queued and resolution.continues_with is not None:
        return to, values | {"intent": resolution.continues_with.as_document()}
    if to is JobState.queued:
        # The intent and the evidence of this attempt are settled. The next attempt must not be judged by them.
        return to, values | {"intent": None, "freeze": None, "timing": None}
    if resolution.judgement is not None:
        values |= judgement_columns(resolution.judgement)
    if resolution.result is not None:
        values["result"] = resolution.result
    if resolution.point is not None:
        values["recovery_point"] = point_document(resolution.point)
    return to, values


def _beginning(job: Job) -> str:
    # The phases inside the window are recorded after the window, so the exact phase is not known.
    place = story.WINDOW if job.phase == PhaseName.freeze else story.PHASE.format(phase=job.phase or "start")
    if job.error is not None and job.error["code"] == MustRecover.code:
        return story.WORKER_GAVE_UP.format(place=place, attempt=job.attempt, why=job.error["detail"].rstrip("."))
    sentence = story.WORKER_DID_NOT_END if _waiting(job) else story.WORKER_LOST
    return sentence.format(place=place, attempt=job.attempt)


def _waiting(job: Job) -> dict[str, Any] | None:
    """The phase `recover` of an earlier look that left the job waiting. That phase has not ended yet."""
    last: dict[str, Any] | None = job.phases[-1] if job.phases else None
    return last if last is not None and last["name"] == PhaseName.recover and last["duration_ms"] is None else None


def _earlier(job: Job) -> list[Any]:
    return list(job.phases[:-1] if _waiting(job) else job.phases)


def _phase(look: _Look, outcome: PhaseOutcome, *, is_over: bool) -> dict[str, Any]:
    now = datetime.now(UTC)
    waiting = _waiting(look.job)
    since = datetime.fromisoformat(waiting["started_at"]) if waiting else now
    return {
        "name": PhaseName.recover.value,
        "started_at": rfc3339(since),
        "duration_ms": (now - since).total_seconds() * 1000 if is_over else None,
        "outcome": outcome.value,
        "detail": " ".join(look.story),
    }


def _tell_waiting(look: _Look) -> None:
    job, waiting = look.job, _waiting(look.job)
    if waiting is not None and job.error is not None:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(waiting["started_at"])).total_seconds()
        look.story.append(story.WAITED.format(since=waiting["started_at"], seconds=seconds, why=job.error["detail"]))


def _evidence(look: _Look) -> dict[str, Any] | None:
    return {**(look.job.evidence or {}), "guard": look.report.as_document()} if look.report is not None else look.job.evidence


def _label(resolution: Resolution, state: JobState) -> str:
    if resolution.point is not None:
        return "point_kept"
    if resolution.was_rolled_back:
        return "rolled_back"
    return "requeued" if state is JobState.queued else state.value
