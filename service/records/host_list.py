"""The hosts, as the command `stillpoint host list` shows them."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Domain, Host, Job
from service.model.lifecycle import JobState
from service.records.host_silence import is_silent


@dataclass(frozen=True)
class HostLine:
    """`running`: running jobs, and jobs that wait for recovery."""

    host_id: str
    is_silent: bool
    seen_ago_s: float
    running: int
    queued: int
    domains: int


def hosts(session: Session) -> list[HostLine]:
    now = database_now(session)
    unfinished = (JobState.queued.value, JobState.running.value, JobState.interrupted.value)
    counts = select(Job.host_id, Job.state, func.count()).where(Job.state.in_(unfinished)).group_by(Job.host_id, Job.state)
    jobs = {(host, state): count for host, state, count in session.execute(counts)}
    of_host = select(Domain.host_id, func.count()).group_by(Domain.host_id)
    domains = {row[0]: int(row[1]) for row in session.execute(of_host)}
    return [
        HostLine(
            host.id,
            is_silent(host, now),
            max(0.0, (now - host.last_seen).total_seconds()),
            jobs.get((host.id, "running"), 0) + jobs.get((host.id, "interrupted"), 0),
            jobs.get((host.id, "queued"), 0),
            domains.get(host.id, 0),
        )
        for host in session.scalars(select(Host).order_by(Host.id))
    ]
