"""Forgets a host that does not return: its jobs end with a true story, and its domains are free for the hosts that have them now.

The jobs say that nobody looked at the guests or their disks. If the host comes back, its worker looks at them
(`service.worker.returned_host`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from service import log
from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import Domain, Host, Job, Slot
from service.errors import HostForgotten, HostNotSilent, HostUnknown
from service.model.kinds import HAVE_GATE, MAKE_POINT
from service.model.lifecycle import FINAL_STATES, JobState, PhaseName, PhaseOutcome
from service.model.verdict import host_forgotten
from service.records import gates, queue
from service.records.following_thaw import thaw_after
from service.records.host_silence import is_silent, silence_of
from service.records.slots import lanes_of

_logger = log.get(__name__)


@dataclass(frozen=True)
class Forgotten:
    """The ids of the host's jobs that were running, the number of its queued jobs, and the number of its domains."""

    host_id: str
    jobs_failed: list[str]
    jobs_cancelled: int
    domains: int

    def as_document(self) -> dict[str, Any]:
        return {"id": self.host_id, "jobs_failed": self.jobs_failed, "jobs_cancelled": self.jobs_cancelled, "domains": self.domains}


def forget(session: Session, host_id: str) -> Forgotten:
    """Forget the host. Raises HostUnknown, and HostNotSilent while its worker may still live."""
    host = session.get(Host, host_id, with_for_update=True)
    now = database_now(session)
    _check(session, host, host_id, now)
    domains = session.scalar(select(func.count()).select_from(Domain).where(Domain.host_id == host_id)) or 0
    # Before the slots are deleted, because an interrupted job holds no slot any more.
    queue.release_expired(session, host_id, all_running=True)
    failed = [_give_up(session, job, now) for job in queue.interrupted(session, host_id)]
    cancelled = queue.cancel_queued(session, host_id, _error(host_id, None).as_document())
    gates.close_all(session, cancelled)
    session.execute(delete(Slot).where(Slot.resource.in_(lanes_of(host_id))).execution_options(synchronize_session=False))
    # The database deletes the domains of the host together with the host.
    session.execute(delete(Host).where(Host.id == host_id).execution_options(synchronize_session=False))
    _logger.warning("host_forgotten", host=host_id, jobs_failed=failed, jobs_cancelled=len(cancelled), domains=domains)
    return Forgotten(host_id, failed, len(cancelled), domains)


def _check(session: Session, host: Host | None, host_id: str, now: datetime) -> None:
    ends = tuple(state.value for state in FINAL_STATES)
    if host is None:
        # The host may have a job that was created while the host was being forgotten. Such a job must be ended, too.
        if not session.scalar(select(exists().where(Job.host_id == host_id, Job.state.not_in(ends)))):
            raise HostUnknown(host=host_id)
        return
    held_until = _held_until(session, host, now)
    silence = silence_of(host)
    if is_silent(host, now) and held_until is None:
        return
    left = max(host.last_seen + silence - now, (held_until or now) - now)
    raise HostNotSilent(
        host=host_id,
        seen_ago_s=round(abs(now - host.last_seen).total_seconds(), 1),
        silence_s=silence.total_seconds(),
        free_in_s=round(max(0.0, left.total_seconds()), 1),
    )


def _held_until(session: Session, host: Host, now: datetime) -> datetime | None:
    """When the last lease of the host's jobs ends. None: all leases have ended.

    A lease that lasts longer than leases do was given by a clock that was ahead, and does not count.
    """
    latest = now + timedelta(seconds=host.lease_seconds)
    until = select(func.max(Job.lease_until, type_=Job.lease_until.type))
    of_host = (Job.host_id == host.id, Job.state == JobState.running.value)
    return session.scalar(until.where(*of_host, Job.lease_until > now, Job.lease_until <= latest))


def _give_up(session: Session, job: Job, now: datetime) -> str:
    error = _error(job.host_id, job)
    story = [error.detail]
    if error.facts["may_be_frozen"]:
        story.append(thaw_after(session, job))
    values: dict[str, Any] = {
        "phase": None,
        "phases": [*job.phases, _phase(story, now)],
        "error": error.as_document(),
        # When the host comes back, its worker looks at the guest and the disks of this job.
        "forgotten_at": now if job.intent is not None else None,
    }
    if job.kind in HAVE_GATE:
        values |= gates.close_after_death(session, job)
    elif job.kind in MAKE_POINT and job.verdict is None:
        judgement = host_forgotten()
        values |= {"verdict": judgement.verdict.value, "verdict_reasons": judgement.as_documents()}
    queue.resolve_interrupted(session, job.id, JobState.failed, values)
    return job.id


def _error(host_id: str, job: Job | None) -> HostForgotten:
    """`job` None: the job had not begun."""
    if job is None:
        return HostForgotten(host=host_id, phase=None, may_be_frozen=False, files=[])
    # The document is read by key, because it must be readable whatever version of the service wrote it.
    intent = job.intent or {}
    files = [overlay["overlay"] for overlay in intent.get("overlays", [])]
    return HostForgotten(host=host_id, phase=job.phase or "start", may_be_frozen=bool(intent.get("will_freeze")), files=files)


def _phase(story: list[str], now: datetime) -> dict[str, Any]:
    return {
        "name": PhaseName.recover.value,
        "started_at": rfc3339(now),
        "duration_ms": 0.0,
        "outcome": PhaseOutcome.failed.value,
        "detail": " ".join(story),
    }
