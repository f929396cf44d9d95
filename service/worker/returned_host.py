"""A forgotten host came back: guests that its jobs may have left frozen are thawed, and the jobs say which files the disks are on.

The jobs stay failed, and the disks stay as they are, because another host may have used them meanwhile.
"""

from pathlib import Path

from sqlalchemy import select, update

from service import log
from service.clock import rfc3339
from service.db import documents
from service.db.base import table_of
from service.db.engine import Database, database_now
from service.db.tables import Job
from service.errors import DomainGone, RecordUnreadable, StillpointError, VersionUnknown
from service.freeze import after_death, guard_report
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.model import requests
from service.model import story as sentences
from service.model.intent import Intent
from service.model.lifecycle import PhaseName, PhaseOutcome
from service.records import queue
from service.worker.recovery_schedule import Schedule

THAW_PATIENCE_S = 5.0
"""Seconds for which one look repeats an unanswered thaw. No job is claimed during a look, so a silent guest is looked at again later."""

_logger = log.get(__name__)


class ReturnedHost:
    def __init__(self, database: Database, connection: HostConnection, host_id: str, state_dir: Path | None) -> None:
        self._database = database
        self._connection = connection
        self._host_id = host_id
        self._state_dir = state_dir
        self._schedule = Schedule()
        connection.on_change(self._schedule.make_all_due)

    def due(self) -> list[str]:
        """Forgotten jobs to look at now. A job waits while another job has the guest, because a thaw would end that job's freeze."""
        with self._database.read() as session:
            left = session.execute(select(Job.id, Job.domain_id).where(Job.host_id == self._host_id, Job.forgotten_at.is_not(None))).all()
            busy = queue.busy_domains(session, [job.domain_id for job in left])
        return [job.id for job in left if job.domain_id not in busy and self._schedule.is_due(job.id)]

    def look(self, job_id: str) -> None:
        """Look at one job. Raises LibvirtUnavailable, DatabaseUnavailable: call this again later then."""
        self._schedule.put_off(job_id)
        with self._database.read() as session:
            job = session.get(Job, job_id)
        if job is None or job.forgotten_at is None:
            self._schedule.forget(job_id)
            return
        story = [f"Host {self._host_id} came back after it was forgotten."]
        waits_for = self._look_at_the_guest(job, story)
        if waits_for is not None:
            _logger.error("forgotten_guest_waits", job_id=job_id, code=waits_for.code, story=story)
            return
        self._end_guard(job_id)
        self._record(job, story)
        self._schedule.forget(job_id)
        _logger.warning("forgotten_job_looked_at", job_id=job_id, story=story)

    def _look_at_the_guest(self, job: Job, story: list[str]) -> StillpointError | None:
        """Returns the problem that must end first. None: the look is done."""
        if job.domain_id is None:
            story.append("The job is not about a domain: nothing was looked at.")
            return None
        intent = Intent.freeze_of(job.intent)
        try:
            guest = self._connection.guest(job.domain_id)
            if guest.was_migrated_away():
                story.append(sentences.MIGRATED)
                return None
            if intent.will_freeze:
                may_have_fuse = requests.may_have_fuse(job.request)
                waits_for = after_death.thaw(guest, intent.instance, story, THAW_PATIENCE_S, may_have_fuse=may_have_fuse)
                if waits_for is not None:
                    return waits_for
            story.append(_whereabouts(guest, Intent.from_document(job.intent)))
        except (DomainGone, RecordUnreadable, VersionUnknown) as error:
            story.append(error.detail)
        return None

    def _end_guard(self, job_id: str) -> None:
        """End a guard that still tries to thaw, because it would end the next freeze."""
        if self._state_dir is not None:
            guard_report.end(self._state_dir, job_id, 0.0)
            guard_report.remove(self._state_dir, job_id)

    def _record(self, job: Job, story: list[str]) -> None:
        with self._database.write() as session:
            row = session.get_one(Job, job.id, with_for_update=True)
            looked = {
                "name": PhaseName.recover.value,
                "started_at": rfc3339(database_now(session)),
                "duration_ms": 0.0,
                "outcome": PhaseOutcome.warning.value,
                "detail": " ".join(story),
            }
            # The guest is thawed now.
            intent = {**(row.intent or {}), "will_freeze": False}
            values = {"phases": [*row.phases, looked], "intent": intent, "forgotten_at": None}
            documents.change_jobs(session, update(table_of(Job)).where(Job.id == job.id).values(values))


def _whereabouts(guest: Guest, intent: Intent) -> str:
    if not intent.overlays:
        return "The job had made no files yet."
    sources = guest.sources()
    where = [f"{overlay.target} is on {sources.get(overlay.target) or 'no file'}" for overlay in intent.overlays]
    return f"Nothing was changed: {', '.join(where)}."
