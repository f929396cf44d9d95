"""Domains: list them, read one, check one, thaw one."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy.orm import Session

from service.api.context import context_of
from service.api.creation import IdempotencyKey, create_job
from service.api.inventory import Inventory
from service.api.openapi import answers
from service.api.query import documented, query_of
from service.api.schemas import examples
from service.api.schemas.domains import DomainAnswer, DomainFilter, DomainLabelsRequest, DomainPage, HostChoice
from service.api.schemas.fields import Name
from service.api.schemas.jobs import JobAnswer, PreflightRequest
from service.db.engine import database_now
from service.errors import (
    BodyTooLarge,
    CursorInvalid,
    DomainAmbiguous,
    DomainQueueFull,
    DomainUnknown,
    IdempotencyMismatch,
    MalformedJson,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.model import requests
from service.records import policies
from service.records.orders import JobOrder
from service.records.placement import place_of

router = APIRouter(prefix="/api/v1/domains", tags=["domains"])
DomainPath = Annotated[Name, Path(description="Name or UUID.", examples=[examples.DOMAIN_ID])]


@router.get(
    "",
    operation_id="list_domains",
    openapi_extra=documented(DomainFilter),
    summary="List domains by name",
    responses=answers(200, DomainPage, {"items": [examples.DOMAIN], "next_cursor": None}, ValidationFailed, CursorInvalid),
)
def list_domains(request: Request) -> Response:
    """The domains that each host's worker has published. `stale`: the last publication is too old to be trusted."""
    wanted = query_of(request, DomainFilter)
    context = context_of(request)
    with context.database.read() as session:
        page = Inventory(session).domains(wanted)
    return _json(page)


@router.get(
    "/{domain}",
    operation_id="get_domain",
    openapi_extra=documented(HostChoice),
    summary="Read a domain",
    responses=answers(200, DomainAnswer, examples.DOMAIN, DomainUnknown, DomainAmbiguous, ValidationFailed),
)
def get_domain(request: Request, domain: DomainPath) -> Response:
    """The disks of the domain and which of them can take part in a snapshot, its filesystems, its agent, its newest recovery point."""
    host = query_of(request, HostChoice).host
    context = context_of(request)
    with context.database.read() as session:
        place = place_of(session, domain, host)
        document = Inventory(session).domain(place.domain_id, place.host_id)
    return _json(document)


@router.put(
    "/{domain}/labels",
    operation_id="label_domain",
    openapi_extra=documented(HostChoice),
    summary="Set the labels of a domain",
    responses=answers(
        200,
        DomainAnswer,
        examples.DOMAIN,
        MalformedJson,
        DomainUnknown,
        DomainAmbiguous,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
    ),
)
def label_domain(request: Request, domain: DomainPath, body: DomainLabelsRequest) -> Response:
    """Policies select by labels. They belong to the domain on whichever host it is, and take the place of those that it has."""
    host = query_of(request, HostChoice).host
    with context_of(request).database.write() as session:
        place = place_of(session, domain, host)
        policies.set_labels(session, place.domain_id, body.labels, database_now(session))
        document = Inventory(session).domain(place.domain_id, place.host_id)
    return _json(document)


@router.post(
    "/{domain}/preflight",
    operation_id="preflight_domain",
    openapi_extra=documented(HostChoice),
    summary="Would a snapshot work, and which verdict is to be expected?",
    status_code=202,
    responses=answers(
        202,
        JobAnswer,
        examples.PREFLIGHT_JOB,
        MalformedJson,
        DomainUnknown,
        DomainAmbiguous,
        DomainQueueFull,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
        IdempotencyMismatch,
    ),
)
def preflight(
    request: Request, domain: DomainPath, body: PreflightRequest | None = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """Creates a job that changes nothing. Its `result` has every check with pass, warn or fail, and the remedy."""
    host = query_of(request, HostChoice).host
    asked = (body or PreflightRequest()).model_dump(mode="json")

    def order(session: Session) -> JobOrder:
        wanted = requests.PreflightRequest.from_document({**asked, "domain": domain, "host": host})
        return JobOrder(wanted, place_of(session, domain, host))

    return create_job(request, idempotency_key, {**asked, "host": host}, order)


@router.post(
    "/{domain}/thaw",
    operation_id="thaw_domain",
    openapi_extra=documented(HostChoice),
    summary="Thaw a guest now",
    status_code=202,
    responses=answers(202, JobAnswer, examples.THAW_JOB, DomainUnknown, DomainAmbiguous, ValidationFailed, IdempotencyMismatch),
)
def thaw(request: Request, domain: DomainPath, idempotency_key: IdempotencyKey = None) -> Response:
    """For emergencies: this does not wait for other jobs of the domain. `stillpoint thaw` on the host needs neither API nor database."""
    host = query_of(request, HostChoice).host

    def order(session: Session) -> JobOrder:
        return JobOrder(requests.ThawRequest(domain, host), place_of(session, domain, host))

    return create_job(request, idempotency_key, {"host": host}, order, urgent=True)


def _json(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document), media_type="application/json")
