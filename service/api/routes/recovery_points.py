"""Recovery points: list them, read one, pin it, and remove it."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.api.context import context_of
from service.api.creation import IdempotencyKey, create_job
from service.api.openapi import answers
from service.api.pages import page_of_recovery_points
from service.api.paging import page_response
from service.api.query import documented, query_of
from service.api.schemas import examples, examples_repository
from service.api.schemas.jobs import JobAnswer
from service.api.schemas.recovery_points import PinRequest, RecoveryPointAnswer, RecoveryPointFilter, RecoveryPointPage, RemoveChoice
from service.db.reader import Statement
from service.db.tables import RecoveryPoint
from service.errors import (
    BodyTooLarge,
    CursorInvalid,
    DomainAmbiguous,
    DomainQueueFull,
    DomainUnknown,
    HostUnknown,
    IdempotencyMismatch,
    MalformedJson,
    PointBelowOverlay,
    PointDamaged,
    PointInUse,
    PointLeaving,
    PointNeeded,
    PointPinned,
    RecoveryPointNotFound,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.model.requests import MergeRequest, PruneRequest
from service.records import points
from service.records.orders import JobOrder, order_of

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


@router.patch(
    "/{recovery_point_id}",
    operation_id="pin_recovery_point",
    summary="Pin a recovery point, or unpin it",
    responses=answers(
        200,
        RecoveryPointAnswer,
        examples_repository.SEALED_POINT,
        RecoveryPointNotFound,
        PointLeaving,
        MalformedJson,
        UnsupportedMediaType,
        BodyTooLarge,
        ValidationFailed,
    ),
)
def pin_recovery_point(request: Request, recovery_point_id: UUID, body: PinRequest) -> Response:
    """Nothing removes a point that is pinned. The manifest in the repository keeps what the backup was asked for."""
    with context_of(request).database.write() as session:
        document = points.set_pinned(session, str(recovery_point_id), pinned=body.pinned)
    return Response(document, media_type="application/json")


@router.delete(
    "/{recovery_point_id}",
    operation_id="remove_recovery_point",
    openapi_extra=documented(RemoveChoice),
    summary="Remove a recovery point",
    status_code=202,
    responses=answers(
        202,
        JobAnswer,
        examples.PRUNE_JOB,
        RecoveryPointNotFound,
        PointNeeded,
        PointPinned,
        PointInUse,
        PointLeaving,
        PointDamaged,
        PointBelowOverlay,
        DomainUnknown,
        DomainAmbiguous,
        DomainQueueFull,
        HostUnknown,
        ValidationFailed,
        IdempotencyMismatch,
    ),
)
def remove_recovery_point(request: Request, recovery_point_id: UUID, idempotency_key: IdempotencyKey = None) -> Response:
    """A job of kind `prune` removes its files. The answer says 409 where other points stand on it, and which. With `merge` a job of kind
    `merge` first moves what they need into them. A point beside the disks of its domain (`state` is `taken`) is removed with `merge` only:
    what was written after it moves into its files, and no other point changes."""
    choice = query_of(request, RemoveChoice)
    points_asked = (str(recovery_point_id),)
    asked: PruneRequest | MergeRequest = PruneRequest(points_asked, with_needing=choice.with_needing)
    if choice.merge:
        asked = MergeRequest(points_asked, remove=True)

    def order(session: Session) -> JobOrder:
        return order_of(session, asked, {})

    return create_job(request, idempotency_key, asked.as_document(), order)
