"""Jobs: create, list, read, explain, cancel and retry them."""

import json
from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy import bindparam
from sqlalchemy.orm import Session

from service.api.context import context_of
from service.api.creation import IdempotencyKey, create_job
from service.api.documents import ONE_JOB, document_of_job
from service.api.openapi import answers
from service.api.pages import page_of_jobs
from service.api.paging import page_response
from service.api.query import documented, query_of
from service.api.schemas import examples
from service.api.schemas.job_requests import PostedJob
from service.api.schemas.jobs import Explanation, JobAnswer, JobFilter, JobPage
from service.db.postgresql import Row
from service.db.reader import Statement
from service.db.tables import Job, JobDocument
from service.errors import (
    BodyTooLarge,
    CancelRefused,
    CursorInvalid,
    DomainQueueFull,
    GuestAlreadyFrozen,
    IdempotencyMismatch,
    JobNotFound,
    MalformedJson,
    RecordUnreadable,
    RetryRefused,
    UnsupportedMediaType,
    ValidationFailed,
    VersionUnknown,
)
from service.model import requests
from service.model.documents import text_of_job
from service.model.explain import explain
from service.model.kinds import KINDS
from service.model.lifecycle import JobState
from service.records import queue
from service.records.orders import NOT_PLACED, JobOrder, order_again, order_of

RETRYABLE = frozenset({JobState.failed, JobState.cancelled})

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])
_ONE_JOB = Statement(ONE_JOB.where(JobDocument.job_id == bindparam("id")))


@router.post(
    "",
    operation_id="create_job",
    summary="Ask for a snapshot, a preflight, a backup, a restore, a verify, a prune, a copy or a merge",
    status_code=202,
    responses=answers(
        202,
        JobAnswer,
        examples.QUEUED_JOB,
        MalformedJson,
        *NOT_PLACED,
        DomainQueueFull,
        GuestAlreadyFrozen,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
        IdempotencyMismatch,
    ),
)
def create(request: Request, body: PostedJob, idempotency_key: IdempotencyKey = None) -> Response:
    """The job is recorded before anything happens. Follow the job at the address in `Location`."""
    asked = body.model_dump(mode="json")

    def order(session: Session) -> JobOrder:
        return order_of(session, requests.read(body.kind, asked), body.labels)

    return create_job(request, idempotency_key, asked, order)


@router.get(
    "",
    operation_id="list_jobs",
    openapi_extra=documented(JobFilter),
    summary="List jobs, newest first",
    responses=answers(200, JobPage, {"items": [examples.JOB_SUMMARY], "next_cursor": None}, ValidationFailed, CursorInvalid),
)
async def list_jobs(request: Request) -> Response:
    """A job must match all filters. New jobs never shift a page that is being read.

    The list leaves out `vss`, `auto_recovery` and `evidence`: read the job for them.
    """
    wanted = query_of(request, JobFilter)
    statement, parameters = page_of_jobs(wanted)
    return await page_response(context_of(request).reader, statement, parameters, wanted.limit)


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Read a job",
    responses=answers(200, JobAnswer, examples.WINDOWS_JOB, JobNotFound, ValidationFailed),
)
async def get_job(request: Request, job_id: UUID) -> Response:
    """Everything that is known about the job so far. A field that is not known yet is null."""
    return Response(await _document(request, job_id), media_type="application/json")


@router.get(
    "/{job_id}/explain",
    operation_id="explain_job",
    summary="Why this job has this verdict, and what would raise it",
    responses=answers(200, Explanation, examples.EXPLANATION, JobNotFound, ValidationFailed),
)
async def explain_job(request: Request, job_id: UUID) -> Response:
    """Explains the job in plain words, from its recorded evidence."""
    document = json.loads(await _document(request, job_id))
    return Response(json.dumps(explain(document)), media_type="application/json")


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    status_code=202,
    responses=answers(202, JobAnswer, examples.CANCELLED_JOB, JobNotFound, CancelRefused, ValidationFailed),
)
def cancel(request: Request, job_id: UUID) -> Response:
    """A queued job ends at once. If an earlier attempt left something on the guest, the job begins once more and undoes that.

    A running job ends at its next safe point, and never between freeze and thaw.

    A backup whose point is sealed already succeeds: it ends its merge, because the guest needs that. An instant restore whose guest has
    started leaves it running, and says in `warnings` how its disks become independent of the repository.
    """
    with context_of(request).database.write() as session:
        queue.request_cancel(session, str(job_id))
        document = document_of_job(session, str(job_id))
    return Response(document, status_code=202, media_type="application/json")


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    summary="Run a failed or cancelled job again, as a new job",
    status_code=202,
    responses=answers(
        202,
        JobAnswer,
        examples.RETRIED_JOB,
        JobNotFound,
        *NOT_PLACED,
        DomainQueueFull,
        RetryRefused,
        GuestAlreadyFrozen,
        ValidationFailed,
        IdempotencyMismatch,
    ),
)
def retry(request: Request, job_id: UUID, idempotency_key: IdempotencyKey = None) -> Response:
    """A final state never changes, so this creates a new job with the same request. Its `retry_of` names this job."""
    return create_job(request, idempotency_key, {}, lambda session: _again(session, str(job_id)))


def _again(session: Session, job_id: str) -> JobOrder:
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(job_id=job_id)
    if job.kind not in KINDS:
        raise RetryRefused(job_id=job_id, state=job.state, reason=f"a newer version made the job, and {job.kind} is not known here")
    kind = KINDS[job.kind]
    if job.state not in RETRYABLE:
        reason = "the job has succeeded" if job.state == JobState.succeeded else "the job is not finished"
        raise RetryRefused(job_id=job_id, state=job.state, reason=reason)
    if not kind.retryable:
        reason = "no caller waits for this job any more: create a new job"
        raise RetryRefused(job_id=job_id, state=job.state, reason=reason)
    try:
        # The new job counts its automatic follow-up jobs from zero.
        request = requests.read(job.kind, job.request, job.request_version)
    except (RecordUnreadable, VersionUnknown) as error:
        raise RetryRefused(job_id=job_id, state=job.state, reason=error.detail) from error
    return order_again(session, job, request)


async def _document(request: Request, job_id: UUID) -> bytes:
    text = await context_of(request).reader.made(_ONE_JOB, {"id": str(job_id)}, _whole)
    if text is None:
        raise JobNotFound(job_id=str(job_id))
    return text


def _whole(row: Row | None) -> bytes | None:
    return text_of_job(*row).encode() if row is not None else None
