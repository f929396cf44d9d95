"""The documents of hosts."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import examples


class HostAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.HOST]})

    id: str
    started_at: str
    last_seen: str
    seconds_since_seen: float
    stale: bool
    version: str
    libvirt_uri: str
    libvirt_connected: bool
    libvirt_error: str | None
    versions: dict[str, Any]
    inventory_at: str | None


class HostPage(BaseModel):
    items: list[HostAnswer]
    next_cursor: str | None


class ForgottenHost(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.FORGOTTEN_HOST]})

    id: str
    jobs_failed: list[str] = Field(description="The running jobs of the host. They failed with `host_forgotten`.")
    jobs_cancelled: int = Field(description="How many queued jobs of the host were cancelled.")
    domains: int = Field(description="How many domains left the list.")
