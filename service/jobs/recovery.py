"""Jobs whose worker died: libvirt and the agent are asked what is true before anything is decided (lifecycle e, f, g, i)."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import log
from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from service.errors import DisksInDoubt, DomainGone, GuestStillFrozen, JobCancelled, LibvirtUnavailable, StillpointError, WorkerLost
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.jobs import overlays, queue
from service.jobs.freeze_window import THAW_PATIENCE_S, thaw_until_answered
from service.jobs.overlays import Overlay
from service.jobs.run import Phase
from service.jobs.snapshot_outcome import disk_document, point_document
from service.model.inventory import DomainState
from service.model.lifecycle import JobState, PhaseName
from service.model.reasons import Effect, Reason
from service.model.verdict import Verdict, no_point
from service.model.window import ThawOutcome

_logger = log.get(__name__)


@dataclass
class _Found:
    """What recovery saw and did; `error` ends the job, None puts it back into the queue."""

    story: list[str]
    error: StillpointError | None = None
    point: RecoveryPoint | None = None


class Recovery:
    def __init__(self, database: Database, connection: HostConnection, thaw_patience_s: float = THAW_PATIENCE_S) -> None:
        self._database = database
        self._connection = connection
        self._thaw_patience_s = thaw_patience_s

    def recover(self, job_id: str) -> None:
        """Thaw, look at the disks, and decide. Raises LibvirtUnavailable or DatabaseUnavailable: then it is tried again later."""
        with self._database.read() as session:
            job = session.get(Job, job_id)
        if job is None or job.state != JobState.interrupted:
            return
        phase = Phase(PhaseName.recover)
        found = self._look(job)
        if found.error is not None:
            phase.fail(" ".join(found.story))
        else:
            phase.warn(" ".join(found.story))
        _logger.warning("job_recovered", job_id=job_id, story=found.story, point=bool(found.point))
        self._resolve(job, found, phase)

    def _look(self, job: Job) -> _Found:
        found = _Found([f"The worker was lost in phase {job.phase or 'start'} of attempt {job.attempt}."])
        intent = job.intent or {}
        try:
            guest = self._connection.guest(job.domain_id)
        except DomainGone as error:
            found.story.append(error.detail)
            found.error = error
            return found
        if intent.get("will_freeze"):
            found.error = _thaw(guest, found.story, self._thaw_patience_s)
        _look_at_disks(job, guest, [Overlay.from_document(document) for document in intent.get("overlays", [])], found)
        if found.error is None and job.attempt >= job.max_attempts:
            found.story.append(f"This was the last of {job.max_attempts} attempts.")
            found.error = WorkerLost(story=" ".join(found.story).rstrip("."))
        return found

    def _resolve(self, job: Job, found: _Found, phase: Phase) -> None:
        values: dict[str, Any] = {"phases": [*job.phases, phase.as_document()], "phase": None}
        to = JobState.queued
        if found.error is None:
            # What was intended is settled: a death early in the next attempt must not be judged by it.
            values["intent"] = None
        if found.error is not None:
            to = JobState.failed
            values["error"] = found.error.as_document()
        elif job.cancel_requested:
            to = JobState.cancelled
            values["error"] = JobCancelled(phase="the next attempt").as_document()
        if found.point is not None:
            reason = Reason("worker_lost", Effect.lowers, "The worker died before it could record whether the freeze held.")
            values |= {
                "verdict": Verdict.crash.value,
                "verdict_reasons": [reason.as_document()],
                "recovery_point": point_document(found.point),
            }
        elif to is not JobState.queued and job.kind == "snapshot":
            values |= {"verdict": no_point().verdict.value, "verdict_reasons": no_point().as_documents()}
        with self._database.write() as session:
            if found.point is not None:
                session.add(found.point)
            queue.resolve_interrupted(session, job.id, to, values)


def _thaw(guest: Guest, story: list[str], patience_s: float) -> StillpointError | None:
    """The freeze may have been sent: nothing is assumed, the agent is asked and a thaw is answered."""
    state = guest.state()
    if state is DomainState.shut_off:
        story.append("The domain is shut off, so nothing is frozen.")
        return None
    if state is not DomainState.running:
        story.append("The domain is paused: its agent cannot answer, and it may be frozen.")
        return GuestStillFrozen(domain=guest.name, tried_ms=0, message="the domain is paused")
    try:
        was_frozen = guest.is_frozen()
    except LibvirtUnavailable:
        raise
    except StillpointError as error:
        story.append(f"The agent did not say whether the guest is frozen ({error.detail}).")
        was_frozen = True
    if not was_frozen:
        story.append("The guest was not frozen.")
        return None
    reply = thaw_until_answered(guest, None, patience_s)
    if reply.outcome is ThawOutcome.unanswered:
        story.append("The guest could not be thawed.")
        return GuestStillFrozen(domain=guest.name, tried_ms=patience_s * 1000, message=reply.message)
    story.append(f"The guest was frozen and was thawed ({reply.count} filesystems)." if reply.count else "A thaw was sent and answered.")
    return None


def _look_at_disks(job: Job, guest: Guest, planned: list[Overlay], found: _Found) -> None:
    """All on their overlays: the point exists. None: the overlays are removed. Some: nothing is touched."""
    sources, persistent = guest.settled_sources(), guest.persistent_sources() if guest.is_persistent() else {}
    used = [overlay for overlay in planned if overlay.path in (sources.get(overlay.target), persistent.get(overlay.target))]
    # A disk on a third file: somebody took another snapshot, and one of our overlays may lie below it.
    moved_on = [overlay for overlay in planned if overlay.is_in_use(sources.get(overlay.target)) is None]
    if not used and not moved_on:
        overlays.remove(planned)
        found.story.append("The disks are as they were; overlays that were made are removed." if planned else "Nothing was made yet.")
        return
    if len(used) < len(planned):
        found.story.append("Not every disk is on its overlay or on the file below it; nothing was deleted.")
        on = {overlay.target for overlay in used}
        found.error = found.error or DisksInDoubt(
            domain=guest.name, switched=", ".join(sorted(on)), unswitched=", ".join(o.target for o in planned if o.target not in on)
        )
        return
    found.story.append("The disks are on their overlays: the point in time was taken, and is kept as crash-consistent.")
    found.point = _point(job, planned)
    found.error = found.error or WorkerLost(story=" ".join(found.story).rstrip("."))


def _point(job: Job, planned: list[Overlay]) -> RecoveryPoint:
    # libvirt wrote nothing into the base since; its last change is the nearest thing to the instant that is left.
    changed = [Path(overlay.base).stat().st_mtime for overlay in planned if Path(overlay.base).exists()]
    instant = datetime.fromtimestamp(max(changed), UTC) if changed else job.updated_at
    return RecoveryPoint(
        id=str(uuid.uuid4()),
        job_id=job.id,
        kind=job.kind,
        domain_id=job.domain_id,
        domain_name=job.domain_name,
        host_id=job.host_id,
        created_at=datetime.now(UTC),
        point_in_time_at=instant,
        verdict=Verdict.crash.value,
        labels=job.labels,
        disks=[disk_document(overlay) for overlay in planned],
    )
