"""The gate: a guest is held frozen while the caller takes the point in time with the caller's own tools."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.api.auth import secret_in
from service.api.context import Context, context_of
from service.api.creation import IdempotencyKey, OrderResult, submit_order
from service.api.documents import document_of_job
from service.api.openapi import answers
from service.api.problems import job_problem_response
from service.api.routes.domains import DomainPath
from service.api.schemas import examples_gate
from service.api.schemas.gate import GateAnswer, QuiesceRequest, ReleaseAnswer, ReleaseRequest
from service.api.waiting import wait
from service.clock import rfc3339
from service.db import tokens
from service.db.engine import database_now
from service.db.reader import Statement
from service.db.tables import Gate, Job
from service.errors import (
    AgentNotAnswering,
    BodyTooLarge,
    DomainAmbiguous,
    DomainPaused,
    DomainQueueFull,
    DomainStateUnsuitable,
    DomainUnknown,
    FreezeFailed,
    GateClosed,
    GateNotFound,
    GateNotOpened,
    GateTokenWrong,
    GuestAlreadyFrozen,
    HoldLimitTooLong,
    IdempotencyMismatch,
    JobCancelled,
    MalformedJson,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.model import requests
from service.model.gate import GateState
from service.model.lifecycle import FINAL_STATES
from service.model.policy import FreezePolicy
from service.model.verdict import Verdict
from service.records import gates, queue
from service.records.orders import JobOrder
from service.records.placement import place_of

RELEASE_WAIT_S = 120.0
"""Seconds that a release waits for the end of its job, which reads the writers of a Windows guest after the thaw. Then 202 is answered."""

router = APIRouter(prefix="/api/v1/domains", tags=["domains"])
_STATES = Statement(select(Gate.state, Job.state).join(Job, Job.id == Gate.job_id).where(Job.id == bindparam("id")))
_BODY = (MalformedJson, BodyTooLarge, UnsupportedMediaType, ValidationFailed)
_NOT_FREEZABLE = (GuestAlreadyFrozen, DomainPaused, DomainStateUnsuitable, AgentNotAnswering, FreezeFailed, HoldLimitTooLong)


@dataclass(frozen=True)
class _States:
    gate: GateState
    job: str

    @property
    def has_ended(self) -> bool:
        return self.job in FINAL_STATES

    @property
    def is_decided(self) -> bool:
        """Whether the caller can be answered. If a gate closed before it opened, the error of its job comes a little later."""
        return self.has_ended or self.gate in (GateState.open, GateState.releasing)


@router.post(
    "/{domain}/quiesce",
    operation_id="quiesce_domain",
    summary="Hold a guest frozen while you take the point in time yourself",
    status_code=201,
    responses={
        202: {"model": GateAnswer, "content": {"application/json": {"example": examples_gate.OPENING_GATE}}},
        **answers(
            201,
            GateAnswer,
            examples_gate.OPEN_GATE,
            *_BODY,
            *_NOT_FREEZABLE,
            DomainUnknown,
            DomainAmbiguous,
            DomainQueueFull,
            IdempotencyMismatch,
            GateClosed,
            GateNotOpened,
            JobCancelled,
        ),
    },
)
async def quiesce(request: Request, domain: DomainPath, body: QuiesceRequest, idempotency_key: IdempotencyKey = None) -> Response:
    """201: the guest is held now. Copy, then release. 202: the guest is not held yet. Send the same request and Idempotency-Key again.

    If nobody releases the gate, the guest is thawed when `deadline_ms` have passed.
    """
    placed = await run_sync(_place, request, domain, body, idempotency_key)
    context = context_of(request)
    await _wait(context, placed.job_id, lambda states: states.is_decided, body.wait_ms / 1000)
    return await run_sync(_gate_answer, request, placed)


@router.post(
    "/{domain}/quiesce/{job_id}/release",
    operation_id="release_gate",
    summary="Release a gate: the guest is thawed, and the answer says whether the hold lasted",
    responses={
        202: {"model": ReleaseAnswer, "content": {"application/json": {"example": examples_gate.RELEASING}}},
        **answers(200, ReleaseAnswer, examples_gate.RELEASED, *_BODY, GateNotFound, GateTokenWrong),
    },
)
async def release(request: Request, domain: DomainPath, job_id: UUID, body: ReleaseRequest) -> Response:
    """A second call gets the same answer. For a gate that had closed by itself, `held` is false.

    202, with `held` null: the job has not ended after two minutes. Call again.
    """
    context, wanted = context_of(request), str(job_id)
    await run_sync(_mark_released, context, domain, wanted, body.token)
    await _wait(context, wanted, lambda states: states.has_ended, RELEASE_WAIT_S)
    return await run_sync(_release_answer, context, wanted)


async def _wait(context: Context, job_id: str, is_over: Callable[[_States], bool], seconds: float) -> None:
    await wait(context, job_id, _STATES, lambda row: is_over(_States(GateState(row[0]), row[1])), seconds)


# --- quiesce --------------------------------------------------------------------------------------


def _place(request: Request, domain: str, body: QuiesceRequest, key: str | None) -> OrderResult:
    asked = body.model_dump(mode="json", exclude={"wait_ms"})
    freeze = FreezePolicy(timeout_ms=body.timeout_ms, hold_limit_ms=body.deadline_ms, preflush=body.preflush, fuse=body.fuse)
    required = Verdict(body.required_verdict) if body.required_verdict else None
    wanted = requests.QuiesceRequest(domain, body.host, freeze, required)

    def order(session: Session) -> JobOrder:
        return JobOrder(wanted, place_of(session, domain, body.host), body.labels, also_insert=add_gate)

    def add_gate(session: Session, job_id: str) -> None:
        gates.add(session, job_id, _token(request, job_id), body.deadline_ms)

    return submit_order(request, key, asked, order)


def _token(request: Request, job_id: str) -> str:
    """Derived from the caller's own token: only its digest is stored, and a repeated request gets the same token again."""
    return tokens.derived(secret_in(request.scope), f"gate {job_id}")


def _gate_answer(request: Request, placed: OrderResult) -> Response:
    with context_of(request).database.read() as session:
        job, gate, now = session.get_one(Job, placed.job_id), session.get(Gate, placed.job_id), database_now(session)
    if gate is None:
        # The gate closed long ago, and its row was pruned.
        raise GateClosed(job_id=job.id)
    if job.error is not None and gate.opened_at is None:
        return job_problem_response(job.error, job.id, request.url.path)
    left_ms = (gate.deadline_at - now).total_seconds() * 1000 if gate.deadline_at else None
    if gate.state in (GateState.releasing, GateState.closed) or job.state in FINAL_STATES or (left_ms is not None and left_ms <= 0):
        raise GateClosed(job_id=job.id)
    document = {
        "job": {"id": job.id, "links": _links(job)},
        "token": _token(request, job.id),
        "state": gate.state,
        "opened_at": rfc3339(gate.opened_at) if gate.opened_at else None,
        "deadline_at": rfc3339(gate.deadline_at) if gate.deadline_at else None,
        "hold_budget_ms": round(left_ms, 3) if left_ms is not None else None,
        "filesystems_frozen": gate.filesystems_frozen,
    }
    return _json(document, 201 if gate.state == GateState.open else 202, _headers(job, placed))


def _links(job: Job) -> dict[str, str]:
    own = f"/api/v1/jobs/{job.id}"
    return {"self": own, "explain": f"{own}/explain", "release": f"/api/v1/domains/{job.domain_id}/quiesce/{job.id}/release"}


def _headers(job: Job, placed: OrderResult) -> dict[str, str]:
    location = {"Location": f"/api/v1/jobs/{job.id}"}
    return location if placed.created else {**location, "Idempotent-Replayed": "true"}


# --- release --------------------------------------------------------------------------------------


def _mark_released(context: Context, domain: str, job_id: str, token: str) -> None:
    """Raises GateNotFound, GateTokenWrong."""
    # Urgent, because the guest is frozen until this is committed.
    with context.database.write(urgent=True) as session:
        job, gate = session.get(Job, job_id), session.get(Gate, job_id)
        if job is None or gate is None or not (job.domain_id == domain.lower() or job.domain_name == domain):
            raise GateNotFound(job_id=job_id, domain=domain)
        if not tokens.opens(token, gate.token_digest):
            raise GateTokenWrong(job_id=job_id)
        is_unopened = gate.state == GateState.opening and job.state not in FINAL_STATES
        gates.request_release(session, job_id)
        if is_unopened:
            queue.request_cancel(session, job_id)
    context.database.bells.ring(job_id)


def _release_answer(context: Context, job_id: str) -> Response:
    with context.database.read() as session:
        document = document_of_job(session, job_id)
    job: dict[str, Any] = json.loads(document or "{}")
    if job["state"] not in FINAL_STATES:
        return _json({"held": None, "job": job}, 202)
    return _json({"held": bool((job["result"] or {}).get("held")), "job": job}, 200)


def _json(document: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status_code=status, media_type="application/json", headers=headers)
