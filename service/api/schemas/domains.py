"""The documents of domains."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import examples, examples_policy
from service.api.schemas.fields import (
    Answer,
    Filter,
    HostName,
    Labels,
    Name,
    Request,
)
from service.model.request_limits import PRINTABLE
from service.model.verdict import Verdict


class DomainFilter(Filter):
    host: HostName | None = None
    state: str | None = Field(default=None, max_length=32, pattern=PRINTABLE, description="As shown: `running`, `shut_off`, `unknown`, …")
    name: Name | None = None


class HostChoice(Request):
    host: HostName | None = Field(default=None, description="Needed only when several hosts have a domain of this name.")


class DomainLabelsRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [examples_policy.LABELS_REQUEST]})

    labels: Labels = Field(description="All labels of the domain, in the place of those that it has.")


class NewestRecoveryPoint(BaseModel):
    id: str
    created_at: str
    verdict: Verdict


class FrozenBy(BaseModel):
    kind: Literal["job", "not_stillpoint", "unknown"]
    job_id: str | None = Field(description="The job, if `kind` is `job`. Otherwise null.")


class DomainAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.DOMAIN]})

    id: str
    name: str
    host: str
    state: str = Field(description="`unknown` while the host of the domain is silent.")
    stale: bool = Field(description="True: the host has not reported for more than three inventory periods.")
    published_at: str
    labels: dict[str, str] = Field(description="What `PUT /api/v1/domains/{domain}/labels` has set. Policies select by them.")
    persistent: bool | None
    frozen: bool | None = Field(
        description="True from the moment a job of Stillpoint sends freeze, and when another client has frozen the guest. "
        "Null: the agent did not say."
    )
    frozen_since: str | None = Field(
        description="When the job of Stillpoint sent freeze, or when a freeze of another client was first seen. "
        "Null: the guest is not frozen."
    )
    frozen_by: FrozenBy | None = Field(
        description="`job`: the job that holds the guest, or that ended without an answer to its thaw. `not_stillpoint`: the guest was "
        "seen thawed, and no job has frozen the guest since then. `unknown`: neither is known. Null: the guest is not frozen."
    )
    disks: list[dict[str, Any]]
    filesystems: list[dict[str, Any]] | None
    agent: dict[str, Any] | None
    os: dict[str, Any] | None
    newest_recovery_point: NewestRecoveryPoint | None
    links: dict[str, str]


class DomainPage(BaseModel):
    items: list[DomainAnswer]
    next_cursor: str | None
