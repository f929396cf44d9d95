"""Query parameters, read and documented from one model, and strict: a misspelt filter is refused, not ignored."""

from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def query_of(request: Request, model: type[Model]) -> Model:
    """Raises RequestValidationError."""
    parsed = _parsed(model, request.scope["query_string"])
    assert isinstance(parsed, model)
    return parsed


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra=` of a call that reads its query with `query_of`."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    parameters = []
    for name, described in schema["properties"].items():
        resolved = without_null(described, schema.get("$defs", {}))
        description = resolved.pop("description", None)
        parameter = {"name": name, "in": "query", "required": False, "schema": resolved}
        parameters.append(parameter | ({"description": description} if description else {}))
    return {"parameters": parameters}


# Dashboards ask the same question again and again; reading it costs more than answering it.
@lru_cache(maxsize=1024)
def _parsed(model: type[BaseModel], query: bytes) -> BaseModel:
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        given.setdefault(name, []).append(value)
    single = {name: values[0] if _is_single(model, name) and len(values) == 1 else values for name, values in given.items()}
    try:
        return model.model_validate(single)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in found]) from error


def _is_single(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is None or field.default_factory is not list


def without_null(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A parameter cannot say null: `anyOf: [X, null]` is documented as X. Enumerations are written out in place."""
    found = {key: value for key, value in schema.items() if key not in ("default", "title")}
    if "anyOf" in found:
        kind = next(option for option in found.pop("anyOf") if option.get("type") != "null")
        found = {**kind, **found}
    if "$ref" in found:
        target = definitions[found.pop("$ref").rpartition("/")[2]]
        found = {**{key: value for key, value in target.items() if key not in ("title", "description")}, **found}
    return found if schema.get("default") is None else {**found, "default": schema["default"]}
