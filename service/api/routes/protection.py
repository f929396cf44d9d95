"""Protection: which domains are protected as promised, and why the others are not."""

import json
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.api.context import context_of
from service.api.openapi import answers
from service.api.protection_list import page_of_protection, protection_of
from service.api.query import documented, query_of
from service.api.schemas import examples_protection as examples
from service.api.schemas.domains import HostChoice
from service.api.schemas.fields import Name
from service.api.schemas.protection import OneDomainProtection, ProtectionFilter, ProtectionPage
from service.errors import CursorInvalid, DomainAmbiguous, DomainUnknown, PolicyUnknown, RepositoryUnknown, ValidationFailed

router = APIRouter(prefix="/api/v1/protection", tags=["protection"])


@router.get(
    "",
    operation_id="list_protection",
    openapi_extra=documented(ProtectionFilter),
    summary="Which domains are protected as promised, the most urgent first",
    responses=answers(200, ProtectionPage, examples.PROTECTION, ValidationFailed, CursorInvalid, PolicyUnknown, RepositoryUnknown),
)
def list_protection(request: Request) -> Response:
    """Every domain with its policy, the newest point that keeps the promise, when the promise was or will be broken, and the one reason
    with its remedy. First the broken promises, then ties, domains at risk, domains that nobody asked to protect, and the rest by name.

    Also the repositories that fill up, with the date by the trend of their free space. What changes between two pages may move a domain to
    a page that was read before."""
    wanted = query_of(request, ProtectionFilter)
    with context_of(request).database.read() as session:
        page = page_of_protection(session, wanted)
    return Response(json.dumps(page), media_type="application/json")


@router.get(
    "/{domain}",
    operation_id="get_protection",
    openapi_extra=documented(HostChoice),
    summary="Is a domain protected as promised, and if not, why?",
    responses=answers(200, OneDomainProtection, examples.ONE_DOMAIN, DomainUnknown, DomainAmbiguous, ValidationFailed),
)
def get_protection(request: Request, domain: Annotated[Name, Path(description="Name or UUID.", examples=[examples.DOMAIN_ID])]) -> Response:
    """As in the list, with what is promised, the next run, the last jobs and the repositories. A domain that is gone is told of as long as
    it has schedules."""
    host = query_of(request, HostChoice).host
    with context_of(request).database.read() as session:
        document = protection_of(session, domain, host)
    return Response(json.dumps(document), media_type="application/json")
