"""Jobs whose worker died: libvirt and the agent are asked what is true before anything is decided (lifecycle e, f, g, i).

A guest that may be frozen and cannot be thawed now is not given up: its job stays `interrupted`, says what it waits for,
and is looked at again until the guest is thawed or shut off. So does one whose disks libvirt may still move.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import log, metrics
from service.clock import rfc3339
from service.db.engine import Database, database_now
from service.db.tables import Job
from service.errors import DisksInDoubt, DomainGone, JobCancelled, StillpointError, WorkerLost
from service.freeze import after_death, guard_report
from service.freeze.guard_report import GuardReport
from service.hypervisor.connection import HostConnection
from service.jobs import interrupted_disks
from service.jobs.intent import Intent
from service.jobs.interrupted_disks import Found
from service.jobs.run import MustRecover
from service.jobs.snapshot_outcome import point_document
from service.model.kinds import HAVE_GATE, MAKE_POINT
from service.model.lifecycle import JobState, PhaseName, PhaseOutcome
from service.model.reasons import Effect, Reason
from service.model.verdict import Verdict, no_point
from service.records import gates, points, queue
from service.records.following_thaw import thaw_after
from service.worker import moved_guest
from service.worker.recovery_schedule import Schedule

THAW_PATIENCE_S = 30.0
"""How long one look repeats an unanswered thaw; the next look goes on with it."""
GUARD_MOMENT_S = 0.2
"""Before recovery thaws the guest itself: a guard that works needs less, and one that is stopped must not be waited for."""
GUARD_PATIENCE_S = 3.0
"""After it did: a guard that thawed watches for two seconds that it stays so, and writes then."""

_logger = log.get(__name__)


class Recovery:
    """`state_dir`: where the thaw guards of this host leave their reports; None: there are none."""

    def __init__(
        self, database: Database, connection: HostConnection, thaw_patience_s: float = THAW_PATIENCE_S, state_dir: Path | None = None
    ) -> None:
        self._database = database
        self._connection = connection
        self._thaw_patience_s = thaw_patience_s
        self._state_dir = state_dir
        self._schedule = Schedule()
        connection.on_change(self._schedule.make_all_due)

    def is_due(self, job_id: str) -> bool:
        """False: it was looked at a moment ago, nothing has happened on the host since, and it is not its turn again."""
        return self._schedule.is_due(job_id)

    def recover(self, job_id: str) -> None:
        """Thaw, look at the disks, and decide. Raises LibvirtUnavailable or DatabaseUnavailable: then it is tried again later."""
        # First, so that no failure below is repeated at once.
        self._schedule.put_off(job_id)
        with self._database.read() as session:
            job = session.get(Job, job_id)
        if job is None or job.state != JobState.interrupted:
            self._schedule.forget(job_id)
            return
        report = self._guard(job_id, GUARD_MOMENT_S)
        found = Found()
        waits_for = self._look(job, report, found)
        if waits_for is not None:
            self._note(job, waits_for, found, report)
            return
        if report is not None and report.is_alive:
            ended = self._guard(job_id, GUARD_PATIENCE_S)
            if ended is not None and ended.state is not report.state:
                found.story.append(ended.as_sentence())
            report = ended
        self._resolve(job, found, report)
        if report is not None and report.reason is not None:
            metrics.GUARD_INTERVENTIONS.labels(reason=report.reason.value).inc()
        if self._state_dir:
            # Thawed or shut off by now: a guard that still tried would thaw the next window.
            if guard_report.end(self._state_dir, job_id, 0.0):
                guard_report.remove(self._state_dir, job_id)
            else:
                # Its report stays: by it the next window of this guest finds it.
                _logger.error("guard_does_not_end", job_id=job_id)
        self._schedule.forget(job_id)

    def _guard(self, job_id: str, patience_s: float) -> GuardReport | None:
        """What the guard of the job did; one that is at its work is given a moment, because its reply is the evidence."""
        if self._state_dir is None:
            return None
        deadline = time.monotonic() + patience_s
        while (report := guard_report.read(self._state_dir, job_id)) is not None and report.is_alive and time.monotonic() < deadline:
            time.sleep(guard_report.POLL_S)
        return report

    def _look(self, job: Job, report: GuardReport | None, found: Found) -> StillpointError | None:
        """Fills `found`; answers what the job has to wait for."""
        intent = Intent.from_document(job.intent)
        found.story.append(_beginning(job))
        if report is not None:
            found.story.append(report.as_sentence())
        try:
            guest = self._connection.guest(job.domain_id)
            if guest.was_migrated_away():
                found.story.append("The domain was migrated to another host.")
                _tell_of_the_move(intent, report, found)
                found.error = found.lost()
                return None
            if intent.will_freeze:
                may_have_fuse = (job.request.get("freeze") or {}).get("fuse") is not False
                waits_for = after_death.thaw(guest, intent.instance, found.story, self._thaw_patience_s, may_have_fuse=may_have_fuse)
                if waits_for is not None:
                    return waits_for
            else:
                after_death.report_foreign_freeze(guest, found.story)
            waits_for = interrupted_disks.what_may_move_them(guest, intent)
            if waits_for is not None:
                found.story.append(f"What became of the disks cannot be judged yet: {waits_for.detail}")
                return waits_for
            _tell_waiting(job, found)
            interrupted_disks.settle(job, guest, intent, found)
        except DomainGone as error:
            found.story.append(error.detail)
            _tell_of_the_move(intent, report, found)
            found.error = error
        if found.error is None and job.attempt >= job.max_attempts:
            found.story.append(f"This was the last of {job.max_attempts} attempts.")
            found.error = found.lost()
        return None

    def _note(self, job: Job, waits_for: StillpointError, found: Found, report: GuardReport | None) -> None:
        """The job waits; its row says for what. Written when that changes, and not at every look."""
        document = waits_for.as_document()
        if job.error is not None and job.error["code"] == document["code"]:
            return
        phases = [*_earlier(job), _phase(job, found, PhaseOutcome.warning, is_over=False)]
        with self._database.write() as session:
            queue.note_interrupted(session, job.id, {"error": document, "phases": phases, "evidence": _evidence(job, report)})
        if _waiting(job) is None:
            metrics.RECOVERIES.labels(outcome="waiting").inc()
        _logger.error("recovery_waits", job_id=job.id, code=waits_for.code, story=found.story)

    def _resolve(self, job: Job, found: Found, report: GuardReport | None) -> None:
        with self._database.write() as session:
            if found.moved_frozen:
                found.story.append(thaw_after(session, job))
                # Its story has this sentence, too.
                found.error = found.lost() if isinstance(found.error, WorkerLost) else found.error
            to, values = _resolution(job, found, report)
            if to is not JobState.queued and job.kind in HAVE_GATE:
                values |= gates.close_after_death(session, job)
            resolved = queue.resolve_interrupted(session, job.id, to, values)
            if found.point is not None:
                points.add(session, found.point, database_now(session))
        label = _label(found, resolved)
        metrics.RECOVERIES.labels(outcome=label).inc()
        _logger.warning("job_recovered", job_id=job.id, outcome=label, story=found.story)


def _tell_of_the_move(intent: Intent, report: GuardReport | None, found: Found) -> None:
    found.story += moved_guest.tell_of_files(intent)
    found.moved_frozen = intent.will_freeze and not (report is not None and report.is_settled)


def _resolution(job: Job, found: Found, report: GuardReport | None) -> tuple[JobState, dict[str, Any]]:
    """What becomes of the job, and its columns."""
    outcome = PhaseOutcome.failed if found.error is not None else PhaseOutcome.warning
    values: dict[str, Any] = {
        "phases": [*_earlier(job), _phase(job, found, outcome, is_over=True)],
        "phase": None,
        "error": None,
        "evidence": _evidence(job, report),
    }
    to = JobState.queued
    if found.error is not None:
        to = JobState.failed
        values["error"] = found.error.as_document()
    elif job.cancel_requested:
        to = JobState.cancelled
        values["error"] = JobCancelled(phase="the next attempt").as_document()
    else:
        # What was intended and seen is settled: the next attempt must not be judged by it.
        values |= {"intent": None, "freeze": None, "timing": None}
    return to, values | _verdict(job, found, to)


def _beginning(job: Job) -> str:
    # What happens inside the window is recorded after it: nobody knows how far it had come.
    place = "the freeze window" if job.phase == PhaseName.freeze else f"phase {job.phase or 'start'}"
    if job.error is not None and job.error["code"] == MustRecover.code:
        return f"The worker gave up in {place} of attempt {job.attempt}: {job.error['detail'].rstrip('.')}."
    did = "did not come to the end of" if _waiting(job) else "was lost in"
    return f"The worker {did} {place} of attempt {job.attempt}."


def _waiting(job: Job) -> dict[str, Any] | None:
    """The phase of an earlier look that found the job waiting: it has not ended yet."""
    last: dict[str, Any] | None = job.phases[-1] if job.phases else None
    return last if last is not None and last["name"] == PhaseName.recover and last["duration_ms"] is None else None


def _earlier(job: Job) -> list[Any]:
    return list(job.phases[:-1] if _waiting(job) else job.phases)


def _phase(job: Job, found: Found, outcome: PhaseOutcome, *, is_over: bool) -> dict[str, Any]:
    now = datetime.now(UTC)
    waiting = _waiting(job)
    since = datetime.fromisoformat(waiting["started_at"]) if waiting else now
    return {
        "name": PhaseName.recover.value,
        "started_at": rfc3339(since),
        "duration_ms": (now - since).total_seconds() * 1000 if is_over else None,
        "outcome": outcome.value,
        "detail": " ".join(found.story),
    }


def _tell_waiting(job: Job, found: Found) -> None:
    waiting = _waiting(job)
    if waiting is not None and job.error is not None:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(waiting["started_at"])).total_seconds()
        found.story.append(f"This was waited for since {waiting['started_at']}, for {seconds:.0f} s: {job.error['detail']}")


def _evidence(job: Job, report: GuardReport | None) -> dict[str, Any] | None:
    return {**(job.evidence or {}), "guard": report.as_document()} if report is not None else job.evidence


def _verdict(job: Job, found: Found, to: JobState) -> dict[str, Any]:
    if found.was_discarded:
        return {}
    if found.point is not None:
        missed = "judge what it had seen of the freeze window" if job.timing is not None else "record whether the freeze held"
        reason = Reason("worker_lost", Effect.lowers, f"The worker did not come to {missed}.")
        return {
            "verdict": Verdict.crash.value,
            "verdict_reasons": [reason.as_document()],
            "recovery_point": point_document(found.point),
        }
    if to is not JobState.queued and job.kind in MAKE_POINT:
        in_doubt = isinstance(found.error, DisksInDoubt)
        none = no_point("disks_in_doubt", "Not every disk is on its overlay: there is no one point in time.") if in_doubt else no_point()
        return {"verdict": none.verdict.value, "verdict_reasons": none.as_documents()}
    return {}


def _label(found: Found, state: JobState) -> str:
    if found.point is not None:
        return "point_kept"
    if found.was_discarded and found.error is not None and found.error.code == "verdict_below_required":
        return "rolled_back"
    return "requeued" if state is JobState.queued else state.value
