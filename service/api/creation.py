"""Creates a job once, even if the request arrives several times."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Header, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api.context import context_of, token_id_of
from service.api.documents import document_of_job
from service.db.tables import Job
from service.errors import IdempotencyMismatch
from service.model.kinds import KINDS
from service.records import queue
from service.records.frozen_guests import refuse_if_frozen
from service.records.orders import JobOrder
from service.records.queue import NewJob

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your own. The same key with the same body creates only one job, even if it is sent several times.",
    ),
]


@dataclass(frozen=True)
class OrderResult:
    """`created` False: an earlier request with this key created the job."""

    job_id: str
    created: bool
    document: str | None


def create_job(
    request: Request, key: str | None, body: dict[str, Any], order: Callable[[Session], JobOrder], *, urgent: bool = False
) -> Response:
    """202 with the new job, or with the job that this key has created before. Raises the errors of `submit_order`."""
    placed = submit_order(request, key, body, order, urgent=urgent)
    headers = {"Location": f"/api/v1/jobs/{placed.job_id}"}
    if not placed.created:
        headers["Idempotent-Replayed"] = "true"
    return Response(placed.document, status_code=202, media_type="application/json", headers=headers)


def submit_order(
    request: Request, key: str | None, body: dict[str, Any], order: Callable[[Session], JobOrder], *, urgent: bool = False
) -> OrderResult:
    """Record the job, and wake the worker.

    `body` is the validated body for which the key counts, so that the order of its fields does not matter.
    Raises IdempotencyMismatch, GuestAlreadyFrozen, DomainQueueFull, and the errors of `order`.
    """
    context = context_of(request)
    digest = _digest(request.url.path, body)
    token_id = token_id_of(request)
    with context.database.write(urgent=urgent) as session:
        job_id, created, document = _earlier(session, token_id, key, digest), False, None
        if job_id is None:
            new = order(session)
            if new.request.would_freeze:
                refuse_if_frozen(session, new.place)
            # A thaw is never refused, and waits for no other job.
            limit = None if KINDS[new.request.kind].is_urgent else context.settings.queued_per_domain
            enqueued = queue.enqueue(session, _new_job(new, token_id, key, digest), queue_limit=limit)
            job_id, created, document = enqueued.job_id, enqueued.created, enqueued.document
            if created and new.also_insert is not None:
                new.also_insert(session, job_id)
        document = document or document_of_job(session, job_id)
    if created:
        context.wake()
    return OrderResult(job_id, created, document)


def _digest(path: str, body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([path, body], sort_keys=True).encode()).hexdigest()


def _earlier(session: Session, token_id: str, key: str | None, digest: str) -> str | None:
    """The job that this key has created before. It is looked up before the domain, because the domain may be gone meanwhile."""
    if key is None:
        return None
    row = session.execute(select(Job.id, Job.idempotency_digest).where(Job.token_id == token_id, Job.idempotency_key == key)).first()
    if row is None:
        return None
    if row.idempotency_digest != digest:
        raise IdempotencyMismatch(key=key, job_id=row.id)
    return str(row.id)


def _new_job(order: JobOrder, token_id: str, key: str | None, digest: str) -> NewJob:
    return replace(
        order.as_new_job(),
        token_id=token_id,
        idempotency_key=key,
        idempotency_digest=digest if key is not None else None,
    )
