"""Copies of a repository: register, list, change, forget, and see what is there and what its store was proven to be."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from service.api import copy_list
from service.api.context import Context, context_of
from service.api.openapi import answers
from service.api.query import documented, query_of
from service.api.routes.repositories import RepositoryId
from service.api.schemas import examples_copies as examples
from service.api.schemas.copies import (
    CopiedPointPage,
    CopyAnswer,
    CopyChange,
    CopyPage,
    CopyPointFilter,
    CopyProofs,
    CopyRegistrationRequest,
    ForgottenCopy,
)
from service.api.schemas.fields import Name
from service.db.engine import database_now
from service.errors import (
    BodyTooLarge,
    CopyInUse,
    CopyTaken,
    CopyTargetInvalid,
    CopyUnknown,
    CursorInvalid,
    KeyUnusable,
    MalformedJson,
    RepositoryUnknown,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.model.copy_target import target_of
from service.model.key_reference import check_program
from service.records import copies, copy_orders, repositories
from service.records.copies import CopyRegistration

router = APIRouter(prefix="/api/v1/repositories/{repository}/copies", tags=["copies"])
CopyId = Annotated[Name, Path(examples=[examples.COPY_ID], description="Id or name.")]
_NOT_THERE = (RepositoryUnknown, CopyUnknown, ValidationFailed)
_BODY = (MalformedJson, BodyTooLarge, UnsupportedMediaType)


@router.post(
    "",
    operation_id="add_copy",
    summary="Register a copy of a repository",
    status_code=201,
    responses=answers(
        201, CopyAnswer, examples.COPY, *_BODY, RepositoryUnknown, CopyTaken, CopyTargetInvalid, KeyUnusable, ValidationFailed
    ),
)
def add(request: Request, repository: RepositoryId, body: CopyRegistrationRequest) -> Response:
    """Where `retain_days` is given, a job attacks a sentinel there at once. Points are sent by jobs of kind `copy`."""
    context = context_of(request)
    wanted = CopyRegistration(
        name=body.name,
        target=target_of(body.target.as_target()),
        key_reference=body.key,
        retain_days=body.retain_days,
        lock_mode=body.lock_mode,
        rate_limit_bytes=body.rate_limit_bytes,
        retention=body.retention.model_dump() if body.retention is not None else None,
    )
    with context.database.write() as session:
        row = repositories.get(session, repository)
        _check_key(context, body.key, row.host_id)
        copy = copies.add(session, row.id, wanted, database_now(session))
        copy_orders.ask_for_due_proof(session, copy)
        document = copy_list.document_of(session, copies.get(session, row.id, copy.id))
    context.wake()
    return _json(document, 201, {"Location": document["links"]["self"]})


@router.get(
    "",
    operation_id="list_copies",
    summary="List the copies of a repository",
    responses=answers(200, CopyPage, {"items": [examples.COPY], "next_cursor": None}, RepositoryUnknown, ValidationFailed),
)
def list_copies(request: Request, repository: RepositoryId) -> Response:
    """By name, all of them."""
    with context_of(request).database.read() as session:
        rows = copies.of_repository(session, repositories.get(session, repository).id)
        items = copy_list.documents_of(session, rows)
    return _json({"items": items, "next_cursor": None})


@router.get(
    "/{copy}",
    operation_id="get_copy",
    summary="Read a copy of a repository",
    responses=answers(200, CopyAnswer, examples.COPY, *_NOT_THERE),
)
def get(request: Request, repository: RepositoryId, copy: CopyId) -> Response:
    """What its store was proven to be, and how many points it has."""
    with context_of(request).database.read() as session:
        row = repositories.get(session, repository)
        document = copy_list.document_of(session, copies.get(session, row.id, copy))
    return _json(document)


@router.patch(
    "/{copy}",
    operation_id="change_copy",
    summary="Change a copy of a repository",
    responses=answers(200, CopyAnswer, examples.COPY, *_BODY, *_NOT_THERE, CopyTaken, CopyInUse, KeyUnusable),
)
def change(request: Request, repository: RepositoryId, copy: CopyId, body: CopyChange) -> Response:
    """A lock that was set stays as long as it was set: what changes holds for points that are sent from now on."""
    context = context_of(request)
    given = body.model_dump(mode="json", exclude_unset=True)
    if body.retention is not None:
        given["retention"] = body.retention.model_dump()
    values = {"key_reference" if name == "key" else name: value for name, value in given.items()}
    with context.database.write() as session:
        row = repositories.get(session, repository)
        _check_key(context, body.key, row.host_id)
        changed = copies.change(session, copies.get(session, row.id, copy), values, database_now(session))
        copy_orders.ask_for_due_proof(session, changed)
        document = copy_list.document_of(session, copies.get(session, row.id, changed.id))
    context.wake()
    return _json(document)


@router.delete(
    "/{copy}",
    operation_id="forget_copy",
    summary="Take a copy off the list",
    responses=answers(200, ForgottenCopy, {"id": examples.COPY_ID, "name": "offsite"}, *_NOT_THERE, CopyInUse),
)
def forget(request: Request, repository: RepositoryId, copy: CopyId) -> Response:
    """Nothing at its store is touched. Registered again, the next `send` finds what is there."""
    with context_of(request).database.write() as session:
        forgotten = copies.forget(session, repositories.get(session, repository).id, copy)
        document = {"id": forgotten.id, "name": forgotten.name}
    return _json(document)


@router.get(
    "/{copy}/points",
    operation_id="list_copied_points",
    openapi_extra=documented(CopyPointFilter),
    summary="List the points on a copy, newest first",
    responses=answers(200, CopiedPointPage, {"items": [examples.COPIED_POINT], "next_cursor": None}, *_NOT_THERE, CursorInvalid),
)
def list_points(request: Request, repository: RepositoryId, copy: CopyId) -> Response:
    """Also those that the repository has lost or removed: a `fetch` brings them back."""
    wanted = query_of(request, CopyPointFilter)
    with context_of(request).database.read() as session:
        row = copies.get(session, repositories.get(session, repository).id, copy)
        page = copy_list.page_of_points(session, row, wanted)
    return _json(page)


@router.get(
    "/{copy}/proofs",
    operation_id="list_copy_proofs",
    summary="List what attacks on a copy came to, newest first",
    responses=answers(200, CopyProofs, {"items": [examples.COPY_PROOF]}, *_NOT_THERE),
)
def list_proofs(request: Request, repository: RepositoryId, copy: CopyId) -> Response:
    """Each proof with the answers of the store."""
    with context_of(request).database.read() as session:
        row = copies.get(session, repositories.get(session, repository).id, copy)
        items = copy_list.proofs_of(session, row)
    return _json({"items": items})


def _check_key(context: Context, key: str | None, host_id: str) -> None:
    # The setting of another host is known to its own worker only, which looks at each use of the key.
    if key is not None and host_id == context.settings.host_id:
        check_program(key, context.settings.key_programs)


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status_code=status, media_type="application/json", headers=headers)
