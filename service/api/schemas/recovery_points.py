"""The documents of recovery points."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from service.api.schemas import examples, examples_repository
from service.api.schemas.fields import (
    Answer,
    Filter,
    Flag,
    HostName,
    Instant,
    Name,
    Reference,
    Request,
)
from service.model.lifecycle import PointState
from service.model.repository import ProofKind
from service.model.verdict import Verdict


class RecoveryPointFilter(Filter):
    domain: Name | None = Field(default=None, description="Name or UUID.")
    host: HostName | None = None
    repository: Name | None = Field(default=None, description="Name or id.")
    state: PointState | None = None
    verdict: Verdict | None = None
    since: Instant | None = Field(default=None, description="Created at this time or later.")
    until: Instant | None = Field(default=None, description="Created before this time.")


class RemoveChoice(Request):
    with_needing: Flag = Field(default=False, description="Remove all points that stand on it as well.")
    merge: Flag = Field(
        default=False,
        description="First move what the points that stand on it need into them. Not with `with_needing`. A point beside the disks of its "
        "domain is removed in this way only.",
    )

    @model_validator(mode="after")
    def _is_one_wish(self) -> Self:
        if self.with_needing and self.merge:
            raise ValueError("what stands on the point is either removed with it or kept: say `with_needing` or `merge`")
        return self


class PinRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"pinned": True}]})

    pinned: StrictBool = Field(description="Nothing removes a point that is pinned.")


class Proof(Answer):
    """A statement about the point that was tested."""

    kind: ProofKind
    at: str
    ok: bool | None = Field(description="Null: the test could not tell.")
    facts: dict[str, Any]
    job_id: str | None


class RecoveryPointAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.RECOVERY_POINT, examples_repository.SEALED_POINT]})

    id: str
    job_id: str | None = Field(description="Null: the job is not on record here. The point was imported from its repository.")
    kind: str
    domain: Reference
    host: str
    state: PointState
    created_at: str
    point_in_time_at: str
    verdict: Verdict
    labels: dict[str, str]
    pinned: bool = Field(description="Retention never removes the point.")
    retained_until: str | None = Field(
        description="Until then a copy has the point whose store was proven to keep its locks. Null: none has."
    )
    repository: str | None = Field(description="The id of its repository. Null: the point is the files below the guest's overlays.")
    folder: str | None = Field(description="Its folder in the repository.")
    manifest_digest: str | None = Field(description="SHA-256 of its canonical manifest.")
    parents: list[str] = Field(description="The points from which its disks inherit directly.")
    is_encrypted: bool
    is_domain_controller: bool | None = Field(description="The guest had the VSS writer of Active Directory. Null: not known.")
    disks: list[dict[str, Any]]
    left_out: list[dict[str, Any]] = Field(description="Disks of the domain that are not in the point, and why.")
    proofs: list[Proof] = Field(description="What was tested, oldest first.")
    size_bytes: int | None
    links: dict[str, str | None]


class RecoveryPointPage(BaseModel):
    items: list[RecoveryPointAnswer]
    next_cursor: str | None
