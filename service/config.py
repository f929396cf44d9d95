"""Settings: read once at the start, from the environment (`STILLPOINT_…`) or a file of the same lines."""

import json
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SETTINGS_FILE_VARIABLE = "STILLPOINT_SETTINGS_FILE"
_CLASS_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def _default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/stillpoint")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "stillpoint"


def _default_libvirt_uri() -> str:
    return "qemu:///system" if os.geteuid() == 0 else "qemu:///session"


class Settings(BaseSettings):
    """Every setting with its default. Names in the environment are upper case with the prefix `STILLPOINT_`."""

    model_config = SettingsConfigDict(env_prefix="STILLPOINT_", extra="ignore")

    state_dir: Path = Field(
        default_factory=_default_state_dir, description="Folder of the embedded database, the first token and the locks."
    )
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL. Default: SQLite in the state folder. PostgreSQL: postgresql+psycopg://…"
    )
    host_id: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=64,
        description="The name of this host; its worker runs the jobs of its domains.",
    )
    libvirt_uri: str = Field(default_factory=_default_libvirt_uri, description="The libvirt that the worker connects to.")
    bind: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port that the API listens on; 0 takes a free one.")
    log_format: str = Field(default="auto", pattern="^(auto|json|console)$", description="auto: console on a terminal, else JSON.")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="Least level that is logged.")
    jobs_per_host: int = Field(default=4, ge=1, le=256, description="Jobs that run at once on this host.")
    jobs_per_storage: int = Field(default=8, ge=1, le=1024, description="Jobs that write to one storage at once, over all hosts.")
    lease_seconds: float = Field(default=60.0, ge=1, description="A worker that does not renew for this long has lost its jobs.")
    poll_seconds: float = Field(default=1.0, gt=0, description="How often a worker looks for jobs when nobody wakes it.")
    inventory_seconds: float = Field(
        default=30.0, gt=0, description="How often a worker publishes its domains; libvirt's events publish sooner."
    )
    shutdown_seconds: float = Field(default=60.0, gt=0, description="How long a stopping worker waits for its jobs to reach a safe point.")
    overlay_dir: Path | None = Field(default=None, description="Folder for new overlays. Default: beside the disk.")
    overlay_reserve_bytes: int = Field(
        default=256 * 1024 * 1024, ge=0, description="Free space that must be left for each overlay before anything is frozen."
    )
    max_body_bytes: int = Field(default=64 * 1024, ge=1024, description="Largest request body that is read.")
    max_chain_depth: int = Field(default=16, ge=1, description="Backing chain depth from which preflight warns.")
    #: NoDecode: what is no JSON is told like every other mistake in a setting.
    writer_rules: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description='What a VSS writer that fails does to the verdict, by class id: {"a65faa63-…": "warns"}.'
    )
    writers_settle_seconds: float = Field(
        default=60.0, ge=0, le=600, description="How long VSS writers may take after the thaw until their state is final."
    )
    shortfall_pause_seconds: float = Field(
        default=600.0, ge=0, le=86_400, description="Pause before a job with `on_shortfall: retry` is tried again."
    )
    metrics_port: int | None = Field(default=None, description="A worker without API serves its own /metrics here, on `bind`.")

    @field_validator("writer_rules", mode="before")
    @classmethod
    def _rules(cls, value: Any) -> dict[str, str]:
        """Raises PydanticCustomError."""
        try:
            rules = json.loads(value or "{}") if isinstance(value, str) else value
        except ValueError as error:
            raise _unusable(f"it is no JSON: {error}") from error
        if not isinstance(rules, dict):
            raise _unusable("it must be a JSON object of class ids and effects")
        # A mistyped id would never match a writer, and nobody would notice.
        known = {str(class_id).strip("{} ").lower(): str(effect) for class_id, effect in rules.items()}
        wrong = [class_id for class_id in known if not _CLASS_ID.fullmatch(class_id)]
        if wrong:
            raise _unusable(f"{wrong[0]} is no class id such as a65faa63-5ea8-4ebc-9dbd-a0c4db26912a")
        return known

    @field_validator("state_dir", "overlay_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @property
    def effective_database_url(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'stillpoint.db'}"

    @property
    def token_file(self) -> Path:
        return self.state_dir / "admin.token"


def _unusable(reason: str) -> PydanticCustomError:
    return PydanticCustomError("setting_invalid", "{reason}", {"reason": reason})


def load_settings() -> Settings:
    """Read the settings; a file named by STILLPOINT_SETTINGS_FILE is read first and the environment wins over it."""
    path = os.environ.get(SETTINGS_FILE_VARIABLE)
    return Settings(_env_file=path) if path else Settings()
