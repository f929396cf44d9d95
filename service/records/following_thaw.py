"""Thaws a guest that moved to another host after its job ended without a thaw."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Domain, Job
from service.model import story
from service.model.inventory import DomainState
from service.model.requests import ThawRequest
from service.records import queue
from service.records.queue import NewJob


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
        return story.MAY_BE_FROZEN_THERE
    request = ThawRequest(now_at.name)
    thaw = NewJob(
        kind=request.kind.value,
        domain_id=job.domain_id,
        domain_name=now_at.name,
        host_id=now_at.host_id,
        request=request.as_document(),
        labels=dict(job.labels),
    )
    return story.THAWED_THERE.format(host=now_at.host_id, job_id=queue.enqueue(session, thaw).job_id)
