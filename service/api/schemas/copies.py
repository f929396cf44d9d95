"""The documents of copies of repositories."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.api.schemas import examples_copies as examples
from service.api.schemas.fields import Answer, Filter, Name, Rate, Request, WholeNumber
from service.api.schemas.repositories import KeyReference
from service.api.schemas.retention import KeepRules
from service.model.copied import CopiedState
from service.model.copy_target import CopyKind, LockMode
from service.model.immutability import Immutability

MAX_RETAIN_DAYS = 36_500
"""Days, a hundred years. A longer lock is refused, as it is a mistake that nobody can take back."""
RetainDays = Annotated[
    WholeNumber,
    Field(
        ge=1,
        le=MAX_RETAIN_DAYS,
        description="Days for which each point is locked from the moment that it is sent. What it stands on is locked as long. "
        "Null: no lock is asked for.",
    ),
]
CopyKey = Annotated[
    KeyReference,
    Field(
        description="Where the credentials are: `file:/path`, or `command:program arguments`, as for the key of a repository. For S3 two "
        "lines, `access_key_id = …` and `secret_access_key = …`; for rclone the text of an `rclone.conf`. Left out: what boto3 or rclone "
        "finds on the host."
    ),
]


class CopyPlace(Request):
    """Which fields it has depends on its `kind`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TARGET]})

    kind: CopyKind
    path: str | None = Field(default=None, max_length=4096, description="For a `folder`: its absolute path. It must be there and empty.")
    bucket: str | None = Field(default=None, max_length=63, description="For `s3`: a bucket that is there.")
    prefix: str | None = Field(default=None, max_length=512, description="For `s3`: what the names of all objects begin with.")
    endpoint: str | None = Field(default=None, max_length=512, description="For `s3`: the address of the server. Left out: Amazon's.")
    region: str | None = Field(default=None, max_length=64, description="For `s3`: the region of the bucket.")
    remote: str | None = Field(
        default=None,
        max_length=4096,
        description="For `rclone`: `REMOTE:PATH`. The remote is one of the configuration that the key names; options in it are refused.",
    )

    def as_target(self) -> dict[str, Any]:
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}


RETENTION = (
    "Which points stay on the copy that the repository has removed. Each rule looks at all points of a domain there, in UTC. "
    "Null: all of them. "
    "What the repository has, what is locked, and what a point needs that stays is never removed."
)


class CopyRegistrationRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.COPY_REQUEST]})

    name: Name
    target: CopyPlace = Field(description="Where the copy is.")
    key: CopyKey | None = None
    retain_days: RetainDays | None = None
    lock_mode: LockMode = Field(
        default=LockMode.compliance, description="`governance`: who has the right to bypass a lock can take it away."
    )
    rate_limit_bytes: Rate | None = None
    retention: KeepRules | None = Field(default=None, description=RETENTION)


class CopyChange(Request):
    """Fields that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COPY_CHANGE]})

    name: Name | None = None
    key: CopyKey | None = None
    retain_days: RetainDays | None = None
    lock_mode: LockMode | None = Field(default=None, description="The mode of the locks from now on. The proof is due again.")
    rate_limit_bytes: Rate | None = None
    retention: KeepRules | None = Field(default=None, description=RETENTION)

    @model_validator(mode="after")
    def _what_is_never_null(self) -> Self:
        for name in ("name", "lock_mode"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class CopyPointFilter(Filter):
    pass


class CopyAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.COPY]})

    id: str = Field(description="The id of the copy.")
    name: str
    repository: str = Field(description="The id of the repository.")
    target: dict[str, Any] = Field(description="Where the copy is. Its fields depend on its `kind`.")
    key: str | None = Field(description="Where the credentials are. Null: what the host finds.")
    retain_days: int | None = Field(description="Days for which each point is locked. Null: no lock is asked for.")
    lock_mode: LockMode = Field(description="The mode of its locks.")
    rate_limit_bytes: int | None = Field(description="Bytes a second. Null: no limit.")
    retention: dict[str, int] | None = Field(description="Which points stay that the repository has removed. Null: all of them.")
    created_at: str
    opened_at: str | None = Field(description="When a job first found or made the copy there. Null: none has.")
    immutability: Immutability = Field(
        description="`immutable`: every attack on a sentinel failed. `claims_only`: the store takes locks, and does not keep them. `none`: "
        "the store has no locks, or none is asked for. `unknown`: nothing is proven yet."
    )
    proven_at: str | None = Field(description="When its sentinel was attacked last.")
    proof_due_at: str | None = Field(description="When the sentinel is attacked next. Null: never, as no lock is asked for.")
    answers: list[dict[str, Any]] | None = Field(description="What the store answered to each attack of the last proof.")
    points: dict[str, int] = Field(description="How many points are on record there, by their state.")
    links: dict[str, str]


class CopyPage(BaseModel):
    items: list[CopyAnswer]
    next_cursor: str | None


class CopiedPointAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.COPIED_POINT]})

    recovery_point: str = Field(description="The id of the point, which the repository may not have any more.")
    state: CopiedState = Field(
        description="`whole`: all of it is there. `sending`, `removing`: a part may be. `damaged`: it is not what was sent."
    )
    folder: str = Field(description="Where it is, in the repository and in the copy.")
    domain: dict[str, str]
    point_in_time_at: str
    verdict: str
    parents: list[str] = Field(description="The points on which it stands.")
    manifest_digest: str | None = Field(description="SHA-256 of its manifest.")
    size_bytes: int | None = Field(description="Bytes of its files.")
    begun_at: str = Field(description="When the last job began to send it.")
    sent_at: str | None = Field(description="When all of it had arrived.")
    checked_at: str | None = Field(description="When what is there was last held against the manifest.")
    checked_by: str | None = Field(description="`checksum`: the store said it. `content`: it was read back.")
    locked_until: str | None = Field(description="The end of the lock that the store shows.")
    retained_until: str | None = Field(description="The same, where the store was proven to keep its locks.")
    job_id: str = Field(description="The job that sends it, or that sent it.")


class CopiedPointPage(BaseModel):
    items: list[CopiedPointAnswer]
    next_cursor: str | None


class CopyProofAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.COPY_PROOF]})

    at: str = Field(description="When it was attacked.")
    job_id: str = Field(description="The job that attacked.")
    immutability: Immutability = Field(description="What the answers say of the store.")
    lock_mode: LockMode = Field(description="The mode of the locks that were attacked.")
    answers: list[dict[str, Any]] = Field(description="What the store answered to each attack, and whether the sentinel held.")
    why_not: str | None = Field(description="Why there was no lock to attack.")


class CopyProofs(BaseModel):
    items: list[CopyProofAnswer]


class ForgottenCopy(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"id": examples.COPY_ID, "name": "offsite"}]})

    id: str = Field(description="The id that it had.")
    name: str
