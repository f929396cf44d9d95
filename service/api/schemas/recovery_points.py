"""The documents of recovery points."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import examples
from service.api.schemas.fields import (
    Answer,
    Filter,
    HostName,
    Instant,
    Name,
    Reference,
)
from service.model.verdict import Verdict


class RecoveryPointFilter(Filter):
    domain: Name | None = Field(default=None, description="Name or UUID.")
    host: HostName | None = None
    verdict: Verdict | None = None
    since: Instant | None = Field(default=None, description="Created at this time or later.")
    until: Instant | None = Field(default=None, description="Created before this time.")


class RecoveryPointAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.RECOVERY_POINT]})

    id: str
    job_id: str
    kind: str
    domain: Reference
    host: str
    created_at: str
    point_in_time_at: str
    verdict: Verdict
    labels: dict[str, str]
    disks: list[dict[str, Any]]
    size_bytes: int | None
    links: dict[str, str]


class RecoveryPointPage(BaseModel):
    items: list[RecoveryPointAnswer]
    next_cursor: str | None
