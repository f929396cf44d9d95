"""Repositories: register, list, forget, and have the worker look at one or import its points."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from service.api import verification_plan
from service.api.context import context_of
from service.api.openapi import answers
from service.api.query import documented, query_of
from service.api.repository_list import document_of, page_of_repositories, repository_host
from service.api.schemas import examples_repository as examples
from service.api.schemas import examples_verification
from service.api.schemas.fields import Name
from service.api.schemas.repositories import (
    ForgetChoice,
    ForgottenRepository,
    RepositoryAnswer,
    RepositoryFilter,
    RepositoryPage,
    RepositoryRequest,
)
from service.api.schemas.verification import RepositoryChange, VerificationAnswer
from service.db.engine import database_now
from service.errors import (
    BodyTooLarge,
    CursorInvalid,
    HostNotNamed,
    HostUnknown,
    KeyUnusable,
    MalformedJson,
    RepositoryInUse,
    RepositoryTaken,
    RepositoryUnknown,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.model.key_reference import check_program
from service.records import repositories, verification
from service.records.repositories import Registration

router = APIRouter(prefix="/api/v1/repositories", tags=["repositories"])
RepositoryId = Annotated[Name, Path(examples=[examples.REPOSITORY_ID], description="Id or name.")]


@router.post(
    "",
    operation_id="add_repository",
    summary="Register a repository",
    status_code=201,
    responses=answers(
        201,
        RepositoryAnswer,
        examples.REPOSITORY,
        MalformedJson,
        HostUnknown,
        HostNotNamed,
        KeyUnusable,
        RepositoryTaken,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
    ),
)
def add(request: Request, body: RepositoryRequest) -> Response:
    """The worker of the host makes the folder a repository, or reads the repository that is there, as soon as it looks.

    Until then the state is `unknown`. A repository with points of an earlier database keeps its id: import it.
    """
    context = context_of(request)
    with context.database.write() as session:
        wanted = Registration(
            name=body.name,
            path=body.path,
            host_id=repository_host(session, body.host),
            key_reference=body.key,
            max_transfers=body.max_transfers,
            reserve_bytes=body.reserve_bytes,
        )
        # The setting of another host is known to its own worker only, which looks at each use of the key.
        if body.key is not None and wanted.host_id == context.settings.host_id:
            check_program(body.key, context.settings.key_programs)
        repository = repositories.add(session, wanted, database_now(session))
        document = document_of(session, repository)
    context.wake()
    return _json(document, 201, {"Location": document["links"]["self"]})


@router.get(
    "",
    operation_id="list_repositories",
    openapi_extra=documented(RepositoryFilter),
    summary="List repositories",
    responses=answers(200, RepositoryPage, {"items": [examples.REPOSITORY], "next_cursor": None}, ValidationFailed, CursorInvalid),
)
def list_repositories(request: Request) -> Response:
    """By name, as the workers of their hosts last saw them."""
    wanted = query_of(request, RepositoryFilter)
    with context_of(request).database.read() as session:
        page = page_of_repositories(session, wanted)
    return _json(page)


@router.get(
    "/{repository}",
    operation_id="get_repository",
    summary="Read a repository",
    responses=answers(200, RepositoryAnswer, examples.REPOSITORY, RepositoryUnknown, ValidationFailed),
)
def get(request: Request, repository: RepositoryId) -> Response:
    """Its limits, its state, its space, and what the last import found."""
    with context_of(request).database.read() as session:
        document = document_of(session, repositories.get(session, repository))
    return _json(document)


@router.patch(
    "/{repository}",
    operation_id="change_repository",
    summary="Set or take away the budget of verification by plan",
    responses=answers(
        200,
        RepositoryAnswer,
        examples.REPOSITORY,
        RepositoryUnknown,
        MalformedJson,
        UnsupportedMediaType,
        BodyTooLarge,
        ValidationFailed,
    ),
)
def change(request: Request, repository: RepositoryId, body: RepositoryChange) -> Response:
    """With a budget, points are verified without anybody asking: those whose proof is missing or oldest, one at a time."""
    budget = body.verification.as_budget() if body.verification is not None else None
    with context_of(request).database.write() as session:
        document = document_of(session, verification.set_budget(session, repository, budget))
    return _json(document)


@router.get(
    "/{repository}/verification",
    operation_id="get_verification",
    summary="Read what is verified by plan",
    responses=answers(200, VerificationAnswer, examples_verification.VERIFICATION, RepositoryUnknown, ValidationFailed),
)
def get_verification(request: Request, repository: RepositoryId) -> Response:
    """The budget, what is left of it today, what is read next, and what was read. The order is told without a budget, too."""
    with context_of(request).database.read() as session:
        document = verification_plan.document_of(session, repository)
    return _json(document)


@router.delete(
    "/{repository}",
    operation_id="forget_repository",
    openapi_extra=documented(ForgetChoice),
    summary="Take a repository off the list",
    responses=answers(200, ForgottenRepository, examples.FORGOTTEN_REPOSITORY, RepositoryUnknown, RepositoryInUse, ValidationFailed),
)
def forget(request: Request, repository: RepositoryId) -> Response:
    """No file is touched. Registered again, the repository can be imported."""
    choice = query_of(request, ForgetChoice)
    with context_of(request).database.write() as session:
        forgotten, count = repositories.forget(session, repository, forget_points=choice.forget_points)
        document = {"id": forgotten.id, "name": forgotten.name, "points": count}
    return _json(document)


@router.post(
    "/{repository}/check",
    operation_id="check_repository",
    summary="Look at a repository now",
    status_code=202,
    responses=answers(202, RepositoryAnswer, examples.REPOSITORY, RepositoryUnknown, ValidationFailed),
)
def check(request: Request, repository: RepositoryId) -> Response:
    """The worker of its host looks. `check_asked_at` is null again when it has."""
    context = context_of(request)
    with context.database.write() as session:
        document = document_of(session, repositories.ask_check(session, repository, database_now(session)))
    context.wake()
    return _json(document, 202)


@router.post(
    "/{repository}/import",
    operation_id="import_repository",
    summary="Put the points of a repository on record",
    status_code=202,
    responses=answers(202, RepositoryAnswer, examples.REPOSITORY, RepositoryUnknown, ValidationFailed),
)
def import_points(request: Request, repository: RepositoryId) -> Response:
    """For a database that was lost, or points that another service has left. `import_asked_at` is null again when it is done."""
    context = context_of(request)
    with context.database.write() as session:
        document = document_of(session, repositories.ask_import(session, repository, database_now(session)))
    context.wake()
    return _json(document, 202)


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status_code=status, media_type="application/json", headers=headers)
