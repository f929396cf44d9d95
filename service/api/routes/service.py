"""The service itself: health, readiness, metrics, documentation."""

import json

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.api.context import context_of
from service.api.openapi import describe, problems
from service.api.routes import docs
from service.api.schemas import examples
from service.api.schemas.service import Health
from service.api.worker_pages import OK, check_readiness
from service.errors import (
    DatabaseReplaced,
    DatabaseUnavailable,
    HostTaken,
    LibvirtUnavailable,
    LoopDied,
    LoopHangs,
    SchemaOutdated,
    StateFolderUnwritable,
    StillpointError,
    TokenMissing,
    TokenRefused,
)

router = APIRouter(tags=["service"])


@router.get("/healthz", operation_id="health", summary="Does the process live?", response_model=Health)
async def health() -> Response:
    """Needs no token, and depends on nothing else."""
    return Response(OK, media_type="application/json")


@router.get(
    "/readyz",
    operation_id="readiness",
    summary="Can it do its work?",
    response_model=Health,
    responses=problems(
        DatabaseUnavailable,
        DatabaseReplaced,
        SchemaOutdated,
        HostTaken,
        LibvirtUnavailable,
        LoopDied,
        LoopHangs,
        StateFolderUnwritable,
        StillpointError,
    ),
)
def readiness(request: Request) -> Response:
    """Needs no token. 200: the service can write to the database, the database fits this version, and a worker in this process can work."""
    context = context_of(request)
    check_readiness(context.trial, context.worker_problem)
    return Response(OK, media_type="application/json")


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": examples.METRICS}}},
        **problems(TokenMissing, TokenRefused, DatabaseUnavailable, StillpointError),
    },
)
def metrics(request: Request) -> Response:
    """Requests, jobs, recovery points, frozen guests, hosts; give Prometheus the token as `authorization.credentials_file`."""
    return Response(context_of(request).metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return Response(json.dumps(describe(request.app)), media_type="application/json")


@router.get("/docs", include_in_schema=False)
def documentation() -> Response:
    return docs.page()
