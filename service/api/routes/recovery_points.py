"""Recovery points: list them, and read one."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy import bindparam, select

from service.api.context import context_of
from service.api.openapi import answers
from service.api.pages import page_of_recovery_points
from service.api.paging import page_response
from service.api.query import documented, query_of
from service.api.schemas import examples
from service.api.schemas.recovery_points import RecoveryPointAnswer, RecoveryPointFilter, RecoveryPointPage
from service.db.reader import Statement
from service.db.tables import RecoveryPoint
from service.errors import CursorInvalid, RecoveryPointNotFound, ValidationFailed

router = APIRouter(prefix="/api/v1/recovery-points", tags=["recovery points"])
_ONE_POINT = Statement(select(RecoveryPoint.document).where(RecoveryPoint.id == bindparam("id")))


@router.get(
    "",
    operation_id="list_recovery_points",
    openapi_extra=documented(RecoveryPointFilter),
    summary="List recovery points, newest first",
    responses=answers(200, RecoveryPointPage, {"items": [examples.RECOVERY_POINT], "next_cursor": None}, ValidationFailed, CursorInvalid),
)
async def list_recovery_points(request: Request) -> Response:
    """A recovery point must match all filters."""
    wanted = query_of(request, RecoveryPointFilter)
    statement, parameters = page_of_recovery_points(wanted)
    return await page_response(context_of(request).reader, statement, parameters, wanted.limit)


@router.get(
    "/{recovery_point_id}",
    operation_id="get_recovery_point",
    summary="Read a recovery point",
    responses=answers(200, RecoveryPointAnswer, examples.RECOVERY_POINT, RecoveryPointNotFound, ValidationFailed),
)
async def get_recovery_point(request: Request, recovery_point_id: UUID) -> Response:
    """The disks of the point, its verdict, and the job that made the point."""
    row = await context_of(request).reader.row(_ONE_POINT, {"id": str(recovery_point_id)})
    if row is None:
        raise RecoveryPointNotFound(recovery_point_id=str(recovery_point_id))
    return Response(row[0], media_type="application/json")
