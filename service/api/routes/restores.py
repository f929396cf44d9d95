"""The plan of a restore, before anybody asks for the restore."""

import json

from fastapi import APIRouter, Request, Response

from service.api.context import context_of
from service.api.openapi import answers
from service.api.restore_preview import preview_of
from service.api.schemas import examples_repository as examples
from service.api.schemas.restores import RestorePlanAnswer, RestoreWork
from service.errors import (
    BodyTooLarge,
    DiskUnknown,
    HostUnknown,
    MalformedJson,
    PointDamaged,
    PointIncomplete,
    PointNotSealed,
    RecoveryPointNotFound,
    RestoreRefused,
    UnsupportedMediaType,
    UsnRisk,
    ValidationFailed,
)
from service.model import requests

router = APIRouter(prefix="/api/v1/restores", tags=["recovery points"])


@router.post(
    "/preview",
    operation_id="preview_restore",
    summary="What a restore would write, keep and change",
    responses=answers(
        200,
        RestorePlanAnswer,
        examples.RESTORE_PLAN,
        MalformedJson,
        RecoveryPointNotFound,
        HostUnknown,
        PointNotSealed,
        PointDamaged,
        PointIncomplete,
        RestoreRefused,
        UsnRisk,
        DiskUnknown,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
    ),
)
def preview(request: Request, body: RestoreWork) -> Response:
    """Planned with what is on record, so that it is answered at once and changes nothing.

    The job plans again, with the definition in the point and what its host has then: it knows the paths, the adaptations and the space.
    """
    wanted = requests.RestoreRequest.from_document(body.model_dump(mode="json"))
    with context_of(request).database.read() as session:
        document = preview_of(session, wanted)
    return Response(json.dumps(document), media_type="application/json")
