"""Retention: what it would remove, and why it keeps the rest."""

from fastapi import APIRouter, Request, Response

from service.api.context import context_of
from service.api.openapi import answers
from service.api.retention_preview import preview_of
from service.api.schemas import examples_retention as examples
from service.api.schemas.retention import RetentionPreview, RetentionQuestion
from service.db.engine import database_now
from service.errors import (
    BodyTooLarge,
    MalformedJson,
    PolicyUnknown,
    RepositoryUnknown,
    UnsupportedMediaType,
    ValidationFailed,
)

router = APIRouter(prefix="/api/v1/retention", tags=["recovery points"])


@router.post(
    "/preview",
    operation_id="preview_retention",
    summary="What retention would remove, and why each other point stays",
    responses=answers(
        200,
        RetentionPreview,
        examples.PREVIEW,
        PolicyUnknown,
        RepositoryUnknown,
        MalformedJson,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
    ),
)
def preview(request: Request, body: RetentionQuestion) -> Response:
    """For a policy, a repository or a domain, or for all points. With `rules`, these are tried before anybody saves them.

    Nothing is changed. A point that no policy asked for always stays, whatever the rules are.
    """
    with context_of(request).database.read() as session:
        content = preview_of(session, body, database_now(session))
    return Response(content, media_type="application/json")
