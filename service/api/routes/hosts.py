"""Hosts: list them, and forget one."""

import json
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.api.context import context_of
from service.api.inventory import Inventory
from service.api.openapi import answers
from service.api.query import documented, query_of
from service.api.schemas import examples
from service.api.schemas.fields import Filter, HostName
from service.api.schemas.hosts import ForgottenHost, HostPage
from service.errors import CursorInvalid, HostNotSilent, HostUnknown, ValidationFailed
from service.records import forgotten_host

router = APIRouter(prefix="/api/v1/hosts", tags=["hosts"])


@router.get(
    "",
    operation_id="list_hosts",
    openapi_extra=documented(Filter),
    summary="List hosts",
    responses=answers(200, HostPage, {"items": [examples.HOST], "next_cursor": None}, ValidationFailed, CursorInvalid),
)
def list_hosts(request: Request) -> Response:
    """Only the worker of a host can run the jobs of its domains, so a host that does not report has no backups."""
    wanted = query_of(request, Filter)
    context = context_of(request)
    with context.database.read() as session:
        page = Inventory(session).hosts(wanted)
    return Response(json.dumps(page), media_type="application/json")


@router.delete(
    "/{host_id}",
    operation_id="forget_host",
    summary="Forget a host that never comes back",
    responses=answers(200, ForgottenHost, examples.FORGOTTEN_HOST, HostUnknown, HostNotSilent, ValidationFailed),
)
def forget_host(request: Request, host_id: Annotated[HostName, Path(examples=["hv1"])]) -> Response:
    """For a machine that is lost, or that has another STILLPOINT_HOST_ID now. Refused while its worker may be alive.

    Its running jobs fail with `host_forgotten`, because nobody has looked at their guests and disks. Its queued jobs are cancelled. Its
    domains leave the list, and the host that has them now can run their jobs. Recovery points stay on record. If the host comes back, it
    registers again, thaws guests that its jobs may have left frozen, and writes into these jobs which files the disks are on.
    """
    with context_of(request).database.write() as session:
        forgotten = forgotten_host.forget(session, host_id)
    return Response(json.dumps(forgotten.as_document()), media_type="application/json")
