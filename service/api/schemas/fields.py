"""The types of fields in requests and answers, and the base classes of both."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema

from service.model.origin import OWN_LABELS
from service.model.request_limits import (
    DISK_TARGET,
    LABEL_KEY,
    MAX_DISKS,
    MAX_HOLD_MS,
    MAX_HOST_NAME,
    MAX_IMPACT_MS,
    MAX_LABEL_VALUE,
    MAX_LABELS,
    MAX_NAME,
    MAX_RATE_BYTES,
    MAX_TRANSFERS,
    MIN_HOLD_MS,
    MIN_RATE_BYTES,
    PRINTABLE,
)
from service.model.retention_rules import MAX_AGE_S, MAX_KEPT, MAX_MERGE_AT

RFC_3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$", re.ASCII)


def _without_repetition(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("every disk may be named once only")
    return values


def _of_caller(labels: dict[str, str]) -> dict[str, str]:
    """A caller who could write them would give a point to the retention of a policy that did not ask for it."""
    own = sorted(key for key in labels if key.startswith(OWN_LABELS))
    if own:
        raise ValueError(f"labels that begin with {OWN_LABELS} are the service's own: leave out {', '.join(own)}")
    return labels


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
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=PRINTABLE)]
HostName = Annotated[str, Field(min_length=1, max_length=MAX_HOST_NAME, pattern=PRINTABLE)]
DomainName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/]+$")]
FolderPath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]
Rate = Annotated[
    StrictInt,
    Field(ge=MIN_RATE_BYTES, le=MAX_RATE_BYTES, description="Bytes a second at most. Left out: no limit."),
    BeforeValidator(_whole),
]
Transfers = Annotated[StrictInt, Field(ge=1, le=MAX_TRANSFERS), BeforeValidator(_whole)]
Latency = Annotated[StrictInt, Field(ge=1, le=MAX_IMPACT_MS), BeforeValidator(_whole)]
KeptPeriods = Annotated[StrictInt, Field(ge=0, le=MAX_KEPT), BeforeValidator(_whole)]
ChainDepth = Annotated[StrictInt, Field(ge=1, le=MAX_KEPT), BeforeValidator(_whole)]
MergeAt = Annotated[StrictInt, Field(ge=1, le=MAX_MERGE_AT), BeforeValidator(_whole)]
MinimumAge = Annotated[StrictInt, Field(ge=0, le=MAX_AGE_S), BeforeValidator(_whole)]
DiskTarget = Annotated[str, Field(pattern=DISK_TARGET)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=MAX_LABEL_VALUE, pattern=PRINTABLE)]
Labels = Annotated[
    dict[LabelKey, LabelValue],
    Field(
        max_length=MAX_LABELS,
        description="Your own marks; jobs can be listed by them. "
        f"Names that begin with `{OWN_LABELS}` are the service's own, and are refused.",
        json_schema_extra={"additionalProperties": False},
    ),
    AfterValidator(_of_caller),
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


Hold = Annotated[StrictInt, Field(ge=MIN_HOLD_MS, le=MAX_HOLD_MS), BeforeValidator(_whole)]


class Filter(Request):
    limit: int = Field(default=50, ge=1, le=200, description="Items on a page.")
    cursor: str | None = Field(default=None, max_length=512, description="`next_cursor` of the page before, unchanged.")


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Reference(BaseModel):
    id: str
    name: str
