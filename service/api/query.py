"""Reads and documents query parameters by one model. A misspelt filter is refused, and not ignored."""

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


# Dashboards send the same query again and again, and reading a query costs more than answering it.
@lru_cache(maxsize=1024)
def _parsed(model: type[BaseModel], query: bytes) -> BaseModel:
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        given.setdefault(name, []).append(value)
    single = {name: values[0] if _is_single(model, name) and len(values) == 1 else values for name, values in given.items()}
    try:
        return model.model_validate(single)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("query", *fault["loc"])} for fault in faults]) from error


def _is_single(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is None or field.default_factory is not list


def without_null(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A parameter cannot be null, so `anyOf: [X, null]` is documented as X. Enumerations are written out in place."""
    plain = {key: value for key, value in schema.items() if key not in ("default", "title")}
    if "anyOf" in plain:
        kind = next(option for option in plain.pop("anyOf") if option.get("type") != "null")
        plain = {**kind, **plain}
    if "$ref" in plain:
        target = definitions[plain.pop("$ref").rpartition("/")[2]]
        plain = {**{key: value for key, value in target.items() if key not in ("title", "description")}, **plain}
    return plain if schema.get("default") is None else {**plain, "default": schema["default"]}
