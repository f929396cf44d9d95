"""Policies: write, read, pause and remove them."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from service.api.context import context_of
from service.api.openapi import answers
from service.api.policy_domains import page_of_domains
from service.api.policy_list import document_of, page_of_policies
from service.api.policy_preview import facts_of_document, facts_of_policy, preview_of
from service.api.policy_runs import page_of_runs
from service.api.query import documented, query_of
from service.api.schemas import examples_policy as examples
from service.api.schemas.fields import Name
from service.api.schemas.policies import (
    ApplyAnswer,
    ApplyRequest,
    PolicyAnswer,
    PolicyFilter,
    PolicyPage,
    PolicyRequest,
    RemovedPolicy,
    RevisionChoice,
)
from service.api.schemas.policy_preview import DomainOfPolicyPage, PolicyPreview, PreviewChoice
from service.api.schemas.policy_runs import RunFilter, RunPage
from service.errors import (
    BodyTooLarge,
    CursorInvalid,
    MalformedJson,
    PolicyChanged,
    PolicyInvalid,
    PolicyTaken,
    PolicyTie,
    PolicyUnknown,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.records import policies, policy_changes

router = APIRouter(prefix="/api/v1/policies", tags=["policies"])
PolicyId = Annotated[Name, Path(examples=[examples.POLICY_ID], description="Id or name.")]
_OF_A_DOCUMENT = (MalformedJson, PolicyInvalid, BodyTooLarge, UnsupportedMediaType, ValidationFailed)


@router.get(
    "",
    operation_id="list_policies",
    openapi_extra=documented(PolicyFilter),
    summary="List policies",
    responses=answers(200, PolicyPage, {"items": [examples.POLICY], "next_cursor": None}, ValidationFailed, CursorInvalid),
)
def list_policies(request: Request) -> Response:
    """By name."""
    wanted = query_of(request, PolicyFilter)
    with context_of(request).database.read() as session:
        page = page_of_policies(session, wanted)
    return _json(page)


@router.post(
    "",
    operation_id="add_policy",
    summary="Write a new policy",
    status_code=201,
    responses=answers(201, PolicyAnswer, examples.POLICY, PolicyTaken, PolicyTie, *_OF_A_DOCUMENT),
)
def add_policy(request: Request, body: PolicyRequest) -> Response:
    """Everything that is wrong is told at once, each with its `path`. A domain may not get two policies that are equally specific."""
    with context_of(request).database.write() as session:
        document = document_of(policy_changes.create(session, body.document))
    return _json(document, 201, {"Location": document["links"]["self"]})


@router.post(
    "/apply",
    operation_id="apply_policies",
    summary="Write and remove several policies together",
    responses=answers(200, ApplyAnswer, examples.APPLIED, PolicyUnknown, PolicyChanged, PolicyTaken, PolicyTie, *_OF_A_DOCUMENT),
)
def apply_policies(request: Request, body: ApplyRequest) -> Response:
    """All of them or none. Ties are judged by what stands at the end. `stillpoint policy apply` sends this."""
    wanted = [policy_changes.Wanted(each.document.document, each.revision) for each in body.policies]
    unwanted = [policy_changes.Unwanted(each.policy, each.revision) for each in body.remove]
    with context_of(request).database.write() as session:
        trial = session.begin_nested()
        applied = policy_changes.apply(session, wanted, unwanted)
        if body.dry_run:
            trial.rollback()
    done = [{"name": each.name, "change": each.change.value, "revision": each.revision} for each in applied]
    return _json({"dry_run": body.dry_run, "policies": done})


@router.post(
    "/preview",
    operation_id="preview_policy",
    openapi_extra=documented(PreviewChoice),
    summary="What a policy would do in the next days",
    responses=answers(200, PolicyPreview, examples.PREVIEW, *_OF_A_DOCUMENT),
)
def preview_policy(request: Request, body: PolicyRequest) -> Response:
    """Nothing is written. A policy on record with the same name is what the document would take the place of."""
    wanted = query_of(request, PreviewChoice)
    with context_of(request).database.read() as session:
        facts = facts_of_document(session, body.document)
    return _json(preview_of(facts, wanted))


@router.get(
    "/{policy}",
    operation_id="get_policy",
    summary="Read a policy",
    responses=answers(200, PolicyAnswer, examples.POLICY, PolicyUnknown, ValidationFailed),
)
def get_policy(request: Request, policy: PolicyId) -> Response:
    """With all its fields, and its revision."""
    with context_of(request).database.read() as session:
        document = document_of(policies.get(session, policy))
    return _json(document)


@router.put(
    "/{policy}",
    operation_id="change_policy",
    openapi_extra=documented(RevisionChoice),
    summary="Write a policy in the place of another",
    responses=answers(200, PolicyAnswer, examples.POLICY, PolicyUnknown, PolicyChanged, PolicyTaken, PolicyTie, *_OF_A_DOCUMENT),
)
def change_policy(request: Request, policy: PolicyId, body: PolicyRequest) -> Response:
    """A field that is left out gets its default, and `paused` stays as it is. Another `name` gives the policy another name.

    Jobs that run are not touched.
    """
    revision = query_of(request, RevisionChoice).revision
    with context_of(request).database.write() as session:
        document = document_of(policy_changes.replace(session, policy, body.document, revision))
    return _json(document)


@router.delete(
    "/{policy}",
    operation_id="remove_policy",
    openapi_extra=documented(RevisionChoice),
    summary="Remove a policy",
    responses=answers(200, RemovedPolicy, examples.REMOVED_POLICY, PolicyUnknown, PolicyChanged, PolicyTie, ValidationFailed),
)
def remove_policy(request: Request, policy: PolicyId) -> Response:
    """Its points stay, and so do its jobs. What became of its runs stays on record, and `GET /api/v1/policies/{policy}/runs` lists it."""
    revision = query_of(request, RevisionChoice).revision
    with context_of(request).database.write() as session:
        removed = policy_changes.remove(session, policy, revision)
        document = {"id": removed.id, "name": removed.name, "revision": removed.revision}
    return _json(document)


@router.post(
    "/{policy}/pause",
    operation_id="pause_policy",
    summary="Begin nothing of a policy",
    responses=answers(200, PolicyAnswer, {**examples.POLICY, "paused": True}, PolicyUnknown, ValidationFailed),
)
def pause_policy(request: Request, policy: PolicyId) -> Response:
    """Until it is resumed. Each run that is due meanwhile is recorded as skipped. Jobs that run are not touched."""
    return _paused(request, policy, paused=True)


@router.post(
    "/{policy}/resume",
    operation_id="resume_policy",
    summary="Begin the runs of a paused policy again",
    responses=answers(200, PolicyAnswer, examples.POLICY, PolicyUnknown, ValidationFailed),
)
def resume_policy(request: Request, policy: PolicyId) -> Response:
    """From its next run on."""
    return _paused(request, policy, paused=False)


@router.post(
    "/{policy}/preview",
    operation_id="preview_policy_on_record",
    openapi_extra=documented(PreviewChoice),
    summary="What a policy on record will do in the next days",
    responses=answers(200, PolicyPreview, {**examples.PREVIEW, "is_on_record": True}, PolicyUnknown, PolicyInvalid, ValidationFailed),
)
def preview_policy_on_record(request: Request, policy: PolicyId) -> Response:
    """With the domains and policies that there are now."""
    wanted = query_of(request, PreviewChoice)
    with context_of(request).database.read() as session:
        facts = facts_of_policy(session, policy)
    return _json(preview_of(facts, wanted))


@router.get(
    "/{policy}/domains",
    operation_id="list_domains_of_policy",
    openapi_extra=documented(PolicyFilter),
    summary="List the domains of a policy, and why it has them",
    responses=answers(
        200,
        DomainOfPolicyPage,
        {"items": [examples.DOMAIN_OF_POLICY], "next_cursor": None},
        PolicyUnknown,
        CursorInvalid,
        ValidationFailed,
    ),
)
def list_domains_of_policy(request: Request, policy: PolicyId) -> Response:
    """By name. A domain that another policy selects equally well is in the list of both, with `tie`."""
    wanted = query_of(request, PolicyFilter)
    with context_of(request).database.read() as session:
        page = page_of_domains(session, policy, wanted)
    return _json(page)


@router.get(
    "/{policy}/runs",
    operation_id="list_runs_of_policy",
    openapi_extra=documented(RunFilter),
    summary="List what became of the runs of a policy, newest first",
    responses=answers(200, RunPage, {"items": [examples.RUN], "next_cursor": None}, PolicyUnknown, CursorInvalid, ValidationFailed),
)
def list_runs_of_policy(request: Request, policy: PolicyId) -> Response:
    """Each run that was due: its job, or why there is none.

    The runs of a policy that was removed are listed as long as they are on record, by its id or its last name.
    """
    wanted = query_of(request, RunFilter)
    with context_of(request).database.read() as session:
        page = page_of_runs(session, policy, wanted)
    return _json(page)


def _paused(request: Request, policy: str, *, paused: bool) -> Response:
    with context_of(request).database.write() as session:
        document = document_of(policy_changes.set_paused(session, policy, paused=paused))
    return _json(document)


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status_code=status, media_type="application/json", headers=headers)
