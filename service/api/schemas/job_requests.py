"""What `POST /api/v1/jobs` takes: a class for each kind. The class of a body is chosen by its `kind`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Body
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from service.api.problems import KIND_INVALID
from service.api.schemas import examples, examples_copies, examples_repository
from service.api.schemas.fields import HostName, Labels, Latency, Name, Rate, Request
from service.api.schemas.jobs import WorkRequest
from service.api.schemas.restores import RestoreWork
from service.model import requests
from service.model.copied import CopyAction
from service.model.kinds import JobKind
from service.model.policy import OnShortfall
from service.model.repository import Compare, Level, ProofKind
from service.model.requests import POSTED
from service.model.windows.vss_outcome import RETRIES

POSTED_KINDS = tuple(form.kind.value for form in POSTED)


def kind_of(form: type[requests.JobRequest]) -> Any:
    """The type of the field `kind` in the class of one kind."""
    kind = form.kind.value

    def this_kind(value: Any) -> Any:
        if value != kind:
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": repr(kind)})
        return value

    return Annotated[JobKind, BeforeValidator(this_kind), WithJsonSchema({"const": kind, "type": "string"})]


class DomainJob(Request):
    domain: Name = Field(description="Name or UUID of a domain that a host has published.")
    host: HostName | None = Field(default=None, description="Needed only when several hosts have a domain of this name.")
    labels: Labels = Field(default_factory=dict)


class PointTaking(WorkRequest, DomainJob):
    """What a job that takes a point is told about the point."""

    required_verdict: Literal["crash", "filesystem", "application_unverified", "application"] | None = Field(
        default=None,
        description="The least verdict that counts as success. Left out, the freeze mode decides: `required` asks for at least "
        "`filesystem` from a running guest.",
    )
    on_shortfall: OnShortfall = Field(
        default=OnShortfall.keep,
        description="What happens to a point whose verdict is worse than required. `keep`: the point stays, with its true verdict. "
        "`discard`: its overlays are merged back. `retry`: the point stays, and after a pause a new job tries again, up to "
        f"{RETRIES} times; so does a job whose freeze VSS refused for a transient reason. The job itself fails in every case.",
    )


class SnapshotJob(PointTaking):
    """A recovery point beside the disks."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SNAPSHOT_REQUEST]})

    kind: kind_of(requests.SnapshotRequest)  # type: ignore[valid-type]  # one value of an enumeration, which the table of kinds names


class PreflightJob(PointTaking):
    """Whether such a snapshot would work. Nothing is frozen."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**examples.SNAPSHOT_REQUEST, "kind": requests.PreflightRequest.kind.value}]})

    kind: kind_of(requests.PreflightRequest)  # type: ignore[valid-type]


class BackupJob(PointTaking):
    """A recovery point in a repository."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples_repository.BACKUP_REQUEST]})

    kind: kind_of(requests.BackupRequest)  # type: ignore[valid-type]
    repository: Name = Field(description="Name or id of a registered repository.")
    level: Level = Field(
        default=Level.auto,
        description="`auto`: each disk is incremental where that is right, and the job says why it is not. `incremental`: a disk that can "
        "only be copied in full fails the job before anything is frozen.",
    )
    compress: StrictBool = Field(default=False, description="Compress the disks in the repository (zstd).")
    compare: Compare = Field(
        default=Compare.copied, description="What is read back from the repository and compared before the point counts."
    )
    rate_limit_bytes: Rate | None = None
    impact_limit_ms: Latency | None = Field(
        default=None,
        description="The guest's mean write or flush latency above which the copy slows down, then pauses, then gives up. Left out: never.",
    )
    pinned: StrictBool = Field(default=False, description="Retention never removes the point.")


class RestoreJob(RestoreWork):
    """The disks of a point, as a domain or as files. `POST /api/v1/restores/preview` shows the plan of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples_repository.RESTORE_REQUEST]})

    kind: kind_of(requests.RestoreRequest)  # type: ignore[valid-type]
    plan_only: StrictBool = Field(
        default=False, description="Look at everything, write nothing, and end with the whole plan in `result.restore.plan`."
    )
    labels: Labels = Field(default_factory=dict)


def _each_once(checks: list[ProofKind]) -> list[ProofKind]:
    if len(set(checks)) != len(checks):
        raise ValueError("every check may be named once only")
    return checks


def _is_made(check: ProofKind) -> ProofKind:
    if check not in requests.VerifyRequest.checks:
        raise ValueError(f"a verify checks {', '.join(CHECKS)}")
    return check


MAX_POINTS = 1000
"""Points that one request may name."""
CHECKS = tuple(check.value for check in requests.VerifyRequest.checks)
Checks = Annotated[
    list[Annotated[ProofKind, AfterValidator(_is_made), WithJsonSchema({"enum": list(CHECKS), "type": "string"})]],
    Field(min_length=1, max_length=len(CHECKS), json_schema_extra={"uniqueItems": True}),
    AfterValidator(_each_once),
]


class VerifyJob(Request):
    """Reads a point in its repository and everything from which it inherits. Each check becomes a proof with its date."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples_repository.VERIFY_REQUEST]})

    kind: kind_of(requests.VerifyRequest)  # type: ignore[valid-type]
    recovery_point: UUID = Field(description="The id of the point: `GET /api/v1/recovery-points` lists them.")
    host: HostName | None = Field(default=None, description="Left out: the host of the repository.")
    checks: Checks = Field(
        default_factory=lambda: list(requests.VerifyRequest.checks),
        description="`bytes`: every stored byte, and every block that the guest sees. `structure`: `qemu-img check`. `filesystem`: what "
        "the filesystems say of themselves, without mounting them. The bytes are read in any case.",
    )
    rate_limit_bytes: Rate | None = None
    heal: StrictBool = Field(
        default=False,
        description="Make bad files again where good copies of their bytes are found: elsewhere in the repository, or on the disk of the "
        "guest on this host. A file is replaced only by the bytes that were sealed.",
    )
    labels: Labels = Field(default_factory=dict)


class PruneJob(Request):
    """Removes points from their repository. A point on which others stand goes with them only. Nothing else is removed."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples_repository.PRUNE_REQUEST]})

    kind: kind_of(requests.PruneRequest)  # type: ignore[valid-type]
    recovery_points: Annotated[list[UUID], Field(min_length=1, max_length=MAX_POINTS)] = Field(
        description="The ids of points in one repository: `GET /api/v1/recovery-points` lists them."
    )
    with_needing: StrictBool = Field(default=False, description="Remove all points that stand on them as well.")
    host: HostName | None = Field(default=None, description="Left out: the host of the repository.")
    labels: Labels = Field(default_factory=dict)


class CopyJob(Request):
    """Carries points between a repository and a copy of it. What was sent stays sent: the next job continues."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples_copies.COPY_JOB_REQUEST]}, serialize_by_alias=True)

    kind: kind_of(requests.CopyRequest)  # type: ignore[valid-type]
    repository: Name = Field(description="Name or id of a registered repository.")
    copy_name: Name = Field(alias="copy", description="Name or id of a copy of it.")
    action: CopyAction = Field(
        default=CopyAction.send,
        description="`send`: what is missing there, each point after those on which it stands. `fetch`: bring points back into the "
        "repository, where they are put on record by an import. `check`: read back what is there. `remove`: named points, or what "
        "the rules of the copy do not keep. `prove`: attack a sentinel.",
    )
    recovery_points: Annotated[list[UUID], Field(min_length=1, max_length=MAX_POINTS)] | None = Field(
        default=None, description="Only these, and those on which they stand. A `fetch` needs them. Left out: all."
    )
    rate_limit_bytes: Rate | None = None
    host: HostName | None = Field(default=None, description="Left out: the host of the repository.")
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_what_it_fetches(self) -> Self:
        if self.action is CopyAction.fetch and self.recovery_points is None:
            raise ValueError("a fetch names recovery_points")
        return self


class MergeJob(Request):
    """Moves what points hold into the points that stand on them, which then need them no more. What a guest sees stays the same.

    For points beside the disks of a domain (`state` is `taken`) the overlay of each point is merged into the files of the point, while the
    guest runs or is off. The point is gone then, so `remove` must be true.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples_repository.MERGE_REQUEST]})

    kind: kind_of(requests.MergeRequest)  # type: ignore[valid-type]
    recovery_points: Annotated[list[UUID], Field(min_length=1, max_length=MAX_POINTS)] = Field(
        description="The ids of points in one repository, or beside the disks of one domain. Points in a repository that lie upon each "
        "other move together."
    )
    remove: StrictBool = Field(default=False, description="Remove them afterwards, in the same job.")
    rate_limit_bytes: Rate | None = None
    host: HostName | None = Field(default=None, description="Left out: the host of the repository, or that of the domain.")
    labels: Labels = Field(default_factory=dict)


def _kind_of(body: Any) -> Any:
    """None: no class fits."""
    kind = body.get("kind") if isinstance(body, Mapping) else getattr(body, "kind", None)
    return kind if isinstance(kind, str) and kind in POSTED_KINDS else None


_Posted = (
    Annotated[SnapshotJob, Tag(requests.SnapshotRequest.kind.value)]
    | Annotated[PreflightJob, Tag(requests.PreflightRequest.kind.value)]
    | Annotated[BackupJob, Tag(requests.BackupRequest.kind.value)]
    | Annotated[RestoreJob, Tag(requests.RestoreRequest.kind.value)]
    | Annotated[VerifyJob, Tag(requests.VerifyRequest.kind.value)]
    | Annotated[PruneJob, Tag(requests.PruneRequest.kind.value)]
    | Annotated[CopyJob, Tag(requests.CopyRequest.kind.value)]
    | Annotated[MergeJob, Tag(requests.MergeRequest.kind.value)]
)
_EXPECTED = f"Input should be {' or '.join(map(repr, POSTED_KINDS))}"
PostedJob = Annotated[
    _Posted,
    Discriminator(_kind_of, custom_error_type=KIND_INVALID, custom_error_message=_EXPECTED),
    Body(),
]
