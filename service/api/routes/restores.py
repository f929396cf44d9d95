"""The plan of a restore, before anybody asks for the restore."""

import json
from dataclasses import replace

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.api.context import context_of
from service.api.creation import IdempotencyKey, OrderResult, submit_order
from service.api.openapi import answers
from service.api.problems import job_problem_response
from service.api.restore_preview import preview_of
from service.api.schemas import examples_repository as examples
from service.api.schemas.restores import PreviewRequest, RestorePlanAnswer
from service.api.waiting import wait
from service.db.reader import Statement
from service.db.tables import Job
from service.errors import (
    BodyTooLarge,
    DomainQueueFull,
    IdempotencyMismatch,
    MalformedJson,
    UnsupportedMediaType,
    UsnRisk,
    ValidationFailed,
)
from service.model.lifecycle import FINAL_STATES
from service.model.requests import RestoreRequest
from service.records.orders import NOT_PLACED, JobOrder, order_of

router = APIRouter(prefix="/api/v1/restores", tags=["recovery points"])
_STATE = Statement(select(Job.state).where(Job.id == bindparam("id")))


@router.post(
    "/preview",
    operation_id="preview_restore",
    summary="What a restore would write, keep and change",
    responses={
        202: {"model": RestorePlanAnswer, "content": {"application/json": {"example": examples.INCOMPLETE_PLAN}}},
        **answers(
            200,
            RestorePlanAnswer,
            examples.RESTORE_PLAN,
            *NOT_PLACED,
            MalformedJson,
            UsnRisk,
            DomainQueueFull,
            IdempotencyMismatch,
            BodyTooLarge,
            UnsupportedMediaType,
            ValidationFailed,
        ),
    },
)
async def preview(request: Request, body: PreviewRequest, idempotency_key: IdempotencyKey = None) -> Response:
    """A job with `plan_only` reads the definition in the point and looks at the host. It writes nothing outside the database.

    200: the whole plan. 202: the job has not ended within `wait_ms`. The answer then says what is on record, and the job in `job` ends with
    the whole plan in `result.restore.plan`.
    """
    asked = body.model_dump(mode="json", exclude={"wait_ms"})
    wanted = replace(RestoreRequest.from_document(asked), plan_only=True)
    placed = await run_sync(_submit, request, wanted, asked, idempotency_key)
    await wait(context_of(request), placed.job_id, _STATE, lambda row: row[0] in FINAL_STATES, body.wait_ms / 1000)
    return await run_sync(_answer, request, wanted, placed.job_id)


def _submit(request: Request, wanted: RestoreRequest, asked: dict[str, object], key: str | None) -> OrderResult:
    def order(session: Session) -> JobOrder:
        return order_of(session, wanted, {})

    return submit_order(request, key, asked, order)


def _answer(request: Request, wanted: RestoreRequest, job_id: str) -> Response:
    with context_of(request).database.read() as session:
        job = session.get_one(Job, job_id)
        if job.error is not None and job.state in FINAL_STATES:
            return job_problem_response(job.error, job_id, request.url.path)
        plan = ((job.result or {}).get("restore") or {}).get("plan") if job.state in FINAL_STATES else None
        document = plan or preview_of(session, wanted)
    content = json.dumps({**document, "job": job_id, "is_complete": plan is not None})
    headers = {"Location": f"/api/v1/jobs/{job_id}"}
    return Response(content, status_code=200 if plan is not None else 202, media_type="application/json", headers=headers)
