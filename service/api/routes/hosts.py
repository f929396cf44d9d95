"""Hosts: the workers, when they were last seen, and what they run on."""

import json

from fastapi import APIRouter, Request, Response

from service.api import examples
from service.api.context import context_of
from service.api.inventory import Inventory
from service.api.openapi import answers
from service.api.query import documented, query_of
from service.api.schemas import Filter, HostPage
from service.errors import CursorInvalid, ValidationFailed

router = APIRouter(prefix="/api/v1/hosts", tags=["hosts"])


@router.get(
    "",
    operation_id="list_hosts",
    openapi_extra=documented(Filter),
    summary="List hosts",
    responses=answers(200, HostPage, {"items": [examples.HOST], "next_cursor": None}, ValidationFailed, CursorInvalid),
)
def list_hosts(request: Request) -> Response:
    """Only a host's own worker can run the jobs of its domains, so a host that is not seen is a host without backups."""
    wanted = query_of(request, Filter)
    context = context_of(request)
    with context.database.read() as session:
        page = Inventory(session).hosts(wanted)
    return Response(json.dumps(page), media_type="application/json")
