"""What an answer holds and its schema does not name."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel


def undocumented(answer: BaseModel) -> list[str]:
    """Paths of fields, at any depth below models. A phase's `detail` may be of any shape and has none."""
    return [path for path in _extra(answer, "") if not path.startswith("phases.")]


def _extra(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{at}{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _extra(getattr(value, name), f"{at}{name}.")
    elif isinstance(value, list):
        for item in value:
            yield from _extra(item, at)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _extra(item, at)
