"""The types of fields in requests and answers, and the base classes of both."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema

# Names have no control characters: PostgreSQL refuses NUL, and the others only hide the real name.
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
RFC_3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$", re.ASCII)
MAX_LABELS = 32
"""Labels of a job. A request with more is refused."""
MAX_DISKS = 64
"""Disks that a request may name. A request with more is refused."""


def _without_repetition(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("every disk may be named once only")
    return values


def _instant(value: Any) -> datetime:
    if not isinstance(value, str) or not RFC_3339.match(value):
        raise ValueError("give an RFC 3339 time such as 2026-01-31T22:00:00Z; a + in a query is written %2B")
    instant = datetime.fromisoformat(value.upper())
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if instant.year > 2000 else datetime.min.replace(tzinfo=UTC)


def _whole(value: Any) -> Any:
    """1000.0 is an integer in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _true_or_false(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value)


Flag = Annotated[StrictBool, BeforeValidator(_true_or_false)]
"""A boolean in a query: only `true` and `false`, and not the other texts that pydantic accepts."""
WholeNumber = Annotated[StrictInt, BeforeValidator(_whole)]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=PRINTABLE)]
HostName = Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)]
DomainName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/]+$")]
FolderPath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]
Rate = Annotated[
    StrictInt,
    Field(ge=1024, le=2**50, description="Bytes a second at most. Left out: no limit."),
    BeforeValidator(_whole),
]
Transfers = Annotated[StrictInt, Field(ge=1, le=256), BeforeValidator(_whole)]
Latency = Annotated[StrictInt, Field(ge=1, le=600_000), BeforeValidator(_whole)]
DiskTarget = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=255, pattern=PRINTABLE)]
Labels = Annotated[
    dict[LabelKey, LabelValue],
    Field(
        max_length=MAX_LABELS,
        description="Your own marks; jobs can be listed by them.",
        json_schema_extra={"additionalProperties": False},
    ),
]
Disks = Annotated[
    list[DiskTarget],
    Field(min_length=1, max_length=MAX_DISKS, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_without_repetition),
]
Instant = Annotated[
    datetime, BeforeValidator(_instant, json_schema_input_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


Hold = Annotated[StrictInt, Field(ge=100, le=600_000), BeforeValidator(_whole)]


class Filter(Request):
    limit: int = Field(default=50, ge=1, le=200, description="Items on a page.")
    cursor: str | None = Field(default=None, max_length=512, description="`next_cursor` of the page before, unchanged.")


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Reference(BaseModel):
    id: str
    name: str
