"""Thaws a guest that moved to another host after its job ended without a thaw."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Domain, Job
from service.model.inventory import DomainState
from service.model.requests import ThawRequest
from service.records import queue
from service.records.queue import NewJob

LOOK_FOR_DOMAIN = "The domain may run on another host, and its guest may still be frozen there: look for the domain."
THAWED_BY_JOB = "The domain runs on host {host} now. Job {job} thaws its guest there."


def thaw_after(session: Session, job: Job) -> str:
    """Create a thaw job for the host that publishes the domain now, because a migrated guest stays frozen. Returns a sentence about it.

    Only a host that published the domain after the job began is taken. An earlier publication may be out of date.
    """
    now_at = session.scalar(
        select(Domain)
        .where(Domain.id == job.domain_id, Domain.host_id != job.host_id, Domain.state == DomainState.running.value)
        .where(Domain.published_at > (job.started_at or job.created_at) - timedelta(seconds=1))
        .order_by(Domain.published_at.desc())
        .limit(1)
    )
    if now_at is None:
        return LOOK_FOR_DOMAIN
    request = ThawRequest(now_at.name)
    thaw = NewJob(
        kind=request.kind.value,
        domain_id=job.domain_id,
        domain_name=now_at.name,
        host_id=now_at.host_id,
        request=request.as_document(),
        labels=dict(job.labels),
    )
    return THAWED_BY_JOB.format(host=now_at.host_id, job=queue.enqueue(session, thaw).job_id)
