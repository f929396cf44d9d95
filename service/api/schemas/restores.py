"""What a caller asks of a restore, and the plan of it."""

from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from service.api.schemas import examples_repository as examples
from service.api.schemas.fields import Answer, Disks, DomainName, FolderPath, HostName, Rate, Reference, Request
from service.model.repository import IdentityChoice, RestoreMode


class RestoreWork(Request):
    """What is restored, where, and what the restored domain keeps."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RESTORE_WORK]})

    recovery_point: UUID
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


class RestorePlanAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.RESTORE_PLAN]})

    mode: RestoreMode
    recovery_point: str
    host: str
    domain: Reference | None = Field(description="Null: no domain is made or changed.")
    disks: list[dict[str, Any]]
    needed_bytes: int | None = Field(description="Null: not known.")
    identity: list[dict[str, Any]]
    adaptations: list[dict[str, Any]] = Field(
        description="Changes of the definition that the host needs. The job knows them, a preview does not."
    )
    warnings: list[dict[str, Any]]
    stops_domain: bool
    starts_domain: bool
    restores_nvram_and_tpm: bool
    reads_repository_until: str
    seconds: float | None = Field(description="By the restores on record. Null: not known.")
