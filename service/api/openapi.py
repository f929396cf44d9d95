"""Completes the OpenAPI document of FastAPI: every error with an example, and the token."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.api.auth import OPEN_PATHS
from service.api.problems import MEDIA_TYPE, problem_document, status_of
from service.api.query import without_null
from service.api.schemas import examples
from service.api.schemas.field_texts import FIELD_TEXTS
from service.api.schemas.service import Problem
from service.errors import DatabaseUnavailable, StillpointError, TokenMissing, TokenRefused

Responses = dict[int | str, dict[str, Any]]
REASONS = {
    400: "The body is not JSON",
    401: "A valid token is needed",
    403: "Not allowed",
    404: "Not found",
    409: "Not possible now",
    413: "The body is too large",
    415: "The body is not sent as JSON",
    429: "Too many jobs wait already",
    422: "The request is not valid",
    500: "A fault of the service. Its log has the details",
    503: "The database or another part that the service needs is not available",
}
TAGS = [
    {"name": "jobs", "description": "Operations: create, follow, cancel, retry and explain them."},
    {"name": "domains", "description": "Virtual machines as their hosts last published them."},
    {"name": "recovery points", "description": "What can be restored."},
    {"name": "repositories", "description": "Folders that keep sealed recovery points."},
    {"name": "policies", "description": "What is done for which domains and when, and what is promised for them."},
    {"name": "protection", "description": "Which domains are protected as promised, and why the others are not."},
    {"name": "hosts", "description": "Workers and their machines."},
    {"name": "service", "description": "Health, readiness, metrics, documentation."},
]
DESCRIPTION = """Backups of running KVM guests that can be trusted: frozen, taken, thawed, and recorded with evidence.

Times are RFC 3339 UTC, durations milliseconds (`*_ms`), ids UUIDs. Errors are `application/problem+json` with a stable
`code`, the `facts` by name, and a `remedy`. Compare codes and facts: sentences may change. Lists are paged: pass
`next_cursor` on as `cursor` until it is null. Calls that create a job accept an `Idempotency-Key`. The same key with the
same body answers 202 with the same job and the header `Idempotent-Replayed: true`. With another body it answers 422
`idempotency_mismatch`.
"""


def answers(
    status: int, model: type[BaseModel], example: Any, *errors: type[StillpointError], media: str = "application/json"
) -> Responses:
    """`responses=` of a call that needs a token: the good answer with its example, and every error of the call."""
    always = (TokenMissing, TokenRefused, DatabaseUnavailable, StillpointError)
    return {status: {"model": model, "content": {media: {"example": example}}}, **problems(*errors, *always)}


def problems(*errors: type[StillpointError]) -> Responses:
    by_status: dict[int, dict[str, Any]] = {}
    for error in errors:
        by_status.setdefault(status_of(error), {})[error.code] = {"summary": error.title, "value": _example(error)}
    return {status: _problem_answer(status, errors) for status, errors in sorted(by_status.items())}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document. It is made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=TAGS)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        _restore_nulls(document, app)
        _describe_fields(components["schemas"])
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "sp_…"}}
        document["servers"] = [{"url": "/", "description": "The service that gave this document"}]
        document["security"] = [{"token": []}]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                for parameter in operation.get("parameters", []):
                    parameter["schema"] = without_null(parameter["schema"], {})
                if path in OPEN_PATHS:
                    operation["security"] = []
        app.openapi_schema = document
    return app.openapi_schema


def _describe_fields(schemas: Mapping[str, Any]) -> None:
    """Every field has a text: its own, that of its type, or the one that it has in every document."""
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            inner = next((each["description"] for each in field.get("anyOf", ()) if "description" in each), None)
            if (text := inner or FIELD_TEXTS.get(name)) is not None:
                field.setdefault("description", text)


def _restore_nulls(document: dict[str, Any], app: FastAPI) -> None:
    """Restore the examples as they were written: FastAPI drops null values, and an example without a required field is wrong."""
    for name, model in _models(BaseModel):
        extra = model.model_config.get("json_schema_extra")
        schema = document["components"]["schemas"].get(name)
        if schema is not None and isinstance(extra, dict) and "examples" in extra:
            schema["examples"] = extra["examples"]
    for route in app.routes:
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            answers = document["paths"][route.path_format][method.lower()]["responses"]
            for status, answer in route.responses.items():
                for media, content in answer.get("content", {}).items():
                    answers[str(status)]["content"][media] |= {key: content[key] for key in ("example", "examples") if key in content}


def _models(base: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models of this API, by name."""
    for model in base.__subclasses__():
        if model.__module__.startswith("service.api."):
            yield model.__name__, model
            yield from _models(model)


def _problem_answer(status: int, errors: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": REASONS[status], "content": {MEDIA_TYPE: {"schema": schema, "examples": dict(errors)}}}


def _example(error: type[StillpointError]) -> dict[str, Any]:
    return problem_document(error(**examples.PROBLEM_FACTS.get(error.code, {})), "/api/v1/jobs")
