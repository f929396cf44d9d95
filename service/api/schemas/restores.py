"""What a caller asks of a restore, and the plan of it."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.api.schemas import examples_repository as examples
from service.api.schemas.fields import Answer, Disks, DomainName, FolderPath, HostName, Rate, Request, WholeNumber
from service.model.repository import IdentityChoice, RestoreMode, VerifyWhen

DEFAULT_WAIT_MS = 10_000
"""Milliseconds. A plan takes one or two seconds if the repository answers and the worker is free."""
MAX_WAIT_MS = 60_000
"""Milliseconds. A larger `wait_ms` is refused."""


class RestoreWork(Request):
    """What is restored, where, and what the restored domain keeps."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RESTORE_WORK]})

    recovery_point: UUID = Field(description="The id of the point: `GET /api/v1/recovery-points` lists them.")
    mode: RestoreMode = Field(
        description="`new`: a new domain. `in_place`: new disks for the domain of the point. `files`: the disks as files in `folder`. "
        "`instant`: a new domain that starts at once and reads from the repository until its disks are complete.",
    )
    host: HostName | None = Field(default=None, description="Left out: the host of the point, or the host of its repository.")
    disks: Disks | None = Field(default=None, description="Targets of the disks (`vda`); left out: every disk of the point.")
    name: DomainName | None = Field(default=None, description="Name of the new domain. Left out: the name in the point, or one like it.")
    folder: FolderPath | None = Field(
        default=None, description="Where the disks are written. Left out: the folder of each disk in the point."
    )
    identity: IdentityChoice = Field(
        default=IdentityChoice.auto,
        description="UUID, MAC addresses and serial numbers. `auto`: kept where no domain of any host has them. `keep`: refused "
        "while the domain that was backed up runs on another host.",
    )
    start: StrictBool = Field(default=False, description="Start the restored domain. `instant` always does.")
    stop: StrictBool = Field(default=False, description="`in_place`: a running domain may be stopped.")
    accept_usn_risk: StrictBool = Field(default=False, description="Restore a domain controller that cannot notice that it was restored.")
    remove_old_disks: StrictBool = Field(
        default=False,
        description="`in_place`: remove the old disks once the guest agent of the restored domain has answered. Without it they are kept.",
    )
    rate_limit_bytes: Rate | None = None
    accept_unsigned: StrictBool = Field(
        default=False, description="Restore a point that was imported and that nobody has signed, or that stands on such a point."
    )
    verify: VerifyWhen = Field(
        default=VerifyWhen.auto,
        description="`before`: every byte of the point is read before anything is written or started. `auto`: the same, unless every byte "
        "was read lately and no file was changed since; an instant restore then reads after the start, and the job says on what it relied.",
    )


class PreviewRequest(RestoreWork):
    """A restore that is planned only."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RESTORE_WORK]})

    wait_ms: WholeNumber = Field(
        default=DEFAULT_WAIT_MS,
        ge=0,
        le=MAX_WAIT_MS,
        description="How long this call waits for the plan. After that the answer is 202: what is on record, and the job that plans.",
    )


class PlannedDomain(BaseModel):
    id: str | None = Field(description="Its UUID. Null: it gets a new one when it is restored.")
    name: str = Field(description="Its name.")


class ReliedOn(BaseModel):
    """Every byte of the point was read then, and the filesystem says that no file was changed since."""

    read_at: str = Field(description="When the point was read that was read the longest ago, among those that the restore reads.")
    age_s: int = Field(description="How long that was ago.")
    job_id: str | None = Field(description="The job that read. Null: it was read when it was sealed.")


class RestorePlanAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.RESTORE_PLAN]})

    job: str = Field(description="The job that plans. Its `result.restore.plan` is the whole plan.")
    is_complete: bool = Field(
        description="False: the job that plans has not ended, and this is what is on record: without adaptations, without the space of the "
        "host, and without the paths that the definition in the point says."
    )
    mode: RestoreMode = Field(description="As asked.")
    recovery_point: str = Field(description="The point that is restored.")
    host: str = Field(description="The host whose worker restores it.")
    domain: PlannedDomain | None = Field(description="Null: no domain is made or changed.")
    disks: list[dict[str, Any]] = Field(
        description="For each disk: the `path` of the new file and its `format`, its `virtual_size`, `needed_bytes` of space, and in "
        "`replaces` the file that the domain in place has now. `JOB` in a path stands for the beginning of the id of the restore. "
        "Null: not known before the definition in the point is read."
    )
    files: dict[str, str] | None = Field(
        default=None, description="Every file that is written, by the target of its disk, or `nvram`. Null: not known yet."
    )
    needed_bytes: int | None = Field(description="The space that all disks need together. Null: not known.")
    free_bytes: dict[str, int] | None = Field(default=None, description="The free space of each folder. Null: not known yet.")
    identity: list[dict[str, Any]] = Field(
        description="For each of name, UUID, MAC addresses, serial numbers and generation id (`what`): whether it is `kept`, `new` or "
        "`absent` (`fate`), the `reason`, and its `values`. Null as a value: made when the point is restored. "
        "Empty: no domain is made or changed."
    )
    adaptations: list[dict[str, Any]] = Field(
        description="What is changed in the definition, as this host needs it: `what`, what it `was`, what it `becomes`, and `why`."
    )
    warnings: list[dict[str, Any]] = Field(description="What you should know before: a stable `code`, and a `detail` in words.")
    stops_domain: bool = Field(description="A running domain is stopped first.")
    starts_domain: bool = Field(description="The restored domain is started.")
    restores_nvram_and_tpm: bool = Field(description="The state of its firmware and of its TPM is restored, too.")
    reads_repository_until: str = Field(
        description="`written`: until the new files are complete. `flattened`: the running domain reads from the repository until its "
        "disks are flattened."
    )
    bytes_read: Literal["before", "after"] | None = Field(
        default=None,
        description="When every byte of the point is compared with its checksum. `before`: before anything is written or started. `after`: "
        "while the bytes are written, and for `instant` after the start. Null: not known yet.",
    )
    relies_on: ReliedOn | None = Field(
        default=None, description="The read on which the restore relies until then. Null: it relies on none, or that is not known yet."
    )
    seconds: float | None = Field(
        description="How long it takes by the restores on record; for `instant` until the disks are flattened. Null: not known."
    )
