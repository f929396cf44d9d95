"""Errors as RFC 9457 problems. Only this module gives errors an HTTP status."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service import errors
from service.errors import StillpointError

MEDIA_TYPE = "application/problem+json"
KIND_INVALID = "job_kind"
"""The type of pydantic's error about the `kind` of a body whose class depends on it."""
RETRY_AFTER_SECONDS = 2
"""Seconds in the header `Retry-After` of the answers 429 and 503."""

STATUS: dict[type[StillpointError], int] = {
    errors.MalformedJson: 400,
    errors.TokenMissing: 401,
    errors.TokenRefused: 401,
    errors.PathNotFound: 404,
    errors.JobNotFound: 404,
    errors.RecoveryPointNotFound: 404,
    errors.DomainUnknown: 404,
    errors.HostUnknown: 404,
    errors.RepositoryUnknown: 404,
    errors.PolicyUnknown: 404,
    errors.MethodNotAllowed: 405,
    errors.DomainAmbiguous: 409,
    errors.HostNotSilent: 409,
    errors.HostNotNamed: 409,
    errors.RepositoryTaken: 409,
    errors.CopyUnknown: 404,
    errors.CopyTaken: 409,
    errors.CopyInUse: 409,
    errors.CopyIncomplete: 409,
    errors.CopyLocked: 409,
    errors.CopyPointNeeded: 409,
    errors.CopyTargetInvalid: 422,
    errors.KeyUnusable: 409,
    errors.PolicyTaken: 409,
    errors.PolicyChanged: 409,
    errors.PolicyTie: 409,
    errors.RepositoryInUse: 409,
    errors.PointNotSealed: 409,
    errors.PointDamaged: 409,
    errors.PointIncomplete: 409,
    errors.PointUnsigned: 409,
    errors.PointNeeded: 409,
    errors.PointPinned: 409,
    errors.PointInUse: 409,
    errors.PointLeaving: 409,
    errors.PointsApart: 409,
    errors.PointBelowOverlay: 409,
    errors.PointFilesShared: 409,
    errors.RestoreRefused: 409,
    errors.UsnRisk: 409,
    errors.DiskUnknown: 409,
    errors.GateTokenWrong: 403,
    errors.GateNotFound: 404,
    errors.CancelRefused: 409,
    errors.GateClosed: 409,
    errors.DomainPaused: 409,
    errors.DomainStateUnsuitable: 409,
    errors.DomainBusy: 409,
    errors.NoAgentChannel: 409,
    errors.AgentLost: 409,
    errors.AgentNotAnswering: 409,
    errors.AgentCommandBlocked: 409,
    errors.NothingToFreeze: 409,
    errors.FreezeFailed: 409,
    errors.VssFreezeFailed: 409,
    errors.HoldSpent: 409,
    errors.GateNotOpened: 409,
    errors.JobCancelled: 409,
    errors.RetryRefused: 409,
    errors.GuestAlreadyFrozen: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.ValidationFailed: 422,
    errors.CursorInvalid: 422,
    errors.PolicyInvalid: 422,
    errors.IdempotencyMismatch: 422,
    errors.HoldLimitTooLong: 422,
    errors.DatabaseReplaced: 503,
    errors.DomainQueueFull: 429,
    errors.DatabaseUnavailable: 503,
    errors.DatabaseUnusable: 503,
    errors.HostTaken: 503,
    errors.LibvirtUnavailable: 503,
    errors.LoopDied: 503,
    errors.LoopHangs: 503,
    errors.StateFolderUnwritable: 503,
    errors.SchemaOutdated: 503,
}


def install_handlers(app: FastAPI) -> None:
    app.exception_handler(StillpointError)(_ours)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    # Starlette logs the exception after this answer. The answer itself gives no details of the fault.
    app.exception_handler(Exception)(_unexpected)


def problem_response(error: StillpointError, path: str, headers: Mapping[str, str] | None = None) -> Response:
    status = status_of(type(error))
    extra = dict(headers or {})
    if status in (429, 503):
        extra["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        extra.setdefault("WWW-Authenticate", 'Bearer realm="stillpoint"')
    content = json.dumps(problem_document(error, path), default=str, allow_nan=False)
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=extra)


def problem_document(error: StillpointError, path: str) -> dict[str, Any]:
    document = error.as_document()
    return {
        "type": f"urn:stillpoint:problem:{error.code}",
        "title": document["title"],
        "status": status_of(type(error)),
        "detail": document["detail"],
        "code": document["code"],
        "remedy": document["remedy"],
        "facts": document["facts"],
        "instance": path,
    }


def job_problem_response(error: dict[str, Any], job_id: str, path: str) -> Response:
    """The error of a job, for a caller who waited for the job. `error`: the document in the job's row."""
    status = {kind.code: status for kind, status in STATUS.items()}.get(error["code"], 409)
    content = {
        "type": f"urn:stillpoint:problem:{error['code']}",
        **{name: error[name] for name in ("title", "detail", "code", "remedy")},
        "status": status,
        "facts": {**error["facts"], "job_id": job_id},
        "instance": path,
    }
    return Response(json.dumps(content), status_code=status, media_type=MEDIA_TYPE)


def status_of(error: type[StillpointError]) -> int:
    return STATUS.get(error, 500)


def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, StillpointError)
    return problem_response(error, request.url.path)


def _unexpected(request: Request, _error: Exception) -> Response:
    return problem_response(StillpointError(), request.url.path)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    known: dict[int, StillpointError] = {
        # FastAPI's own answer to a body that is not UTF-8, nests too deep, or holds a number that is too long.
        400: errors.MalformedJson(reason="the body is not UTF-8, nests too deep, or has a number that is too long"),
        404: errors.PathNotFound(path=path),
        405: errors.MethodNotAllowed(path=path, method=request.method),
    }
    return problem_response(known.get(error.status_code, StillpointError()), path, error.headers)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    path = request.url.path
    if any(fault["type"] == "json_invalid" for fault in faults):
        reason = "; ".join(f"{fault['ctx']['error']} at character {fault['loc'][-1]}" for fault in faults)
        return problem_response(errors.MalformedJson(reason=reason), path)
    if isinstance(error.body, bytes):
        # FastAPI does not parse a body whose Content-Type is not JSON.
        return problem_response(errors.UnsupportedMediaType(content_type=request.headers.get("content-type")), path)
    # The refused value is not repeated, because it may be a secret in the wrong field.
    fields = [{"field": ".".join(_field(fault, error.body)), "reason": fault["msg"]} for fault in faults]
    summary = "; ".join(f"{field['field']}: {field['reason']}" for field in fields)
    return problem_response(errors.ValidationFailed(count=len(fields), summary=summary, fields=fields), path)


def _field(fault: Mapping[str, Any], body: Any) -> list[str]:
    """Where the fault is in the body as the caller sent it.

    Pydantic names the class that it has chosen by `kind`, which is not a field, and for a wrong `kind` it names the body.
    """
    where, *inside = (str(part) for part in fault["loc"])
    if fault["type"] == KIND_INVALID:
        return [where, "kind"]
    if inside and isinstance(body, Mapping) and inside[0] == body.get("kind"):
        return [where, *inside[1:]]
    return [where, *inside]
