"""A guest whose job ended without a thaw runs on another host now: a thaw follows it there."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Domain, Job
from service.model.inventory import DomainState
from service.model.requests import ThawRequest
from service.records import queue
from service.records.queue import NewJob


def thaw_after(session: Session, job: Job) -> str:
    """A freeze goes along with a migration, so a thaw follows it; answers the sentence about it.

    It is a job of the host that publishes the domain now. Only one that published it since the death knows that it has it.
    """
    now_at = session.scalar(
        select(Domain)
        .where(Domain.id == job.domain_id, Domain.host_id != job.host_id, Domain.state == DomainState.running.value)
        .where(Domain.published_at > (job.started_at or job.created_at) - timedelta(seconds=1))
        .order_by(Domain.published_at.desc())
        .limit(1)
    )
    if now_at is None:
        return "It may run on another host and may still be frozen there: look for it."
    request = ThawRequest(now_at.name)
    thaw = NewJob(
        kind=request.kind.value,
        domain_id=job.domain_id,
        domain_name=now_at.name,
        host_id=now_at.host_id,
        request=request.as_document(),
        labels=dict(job.labels),
    )
    return f"It runs on host {now_at.host_id} now, where job {queue.enqueue(session, thaw).job_id} thaws it."
