"""Settings: read once at the start, from the environment (`STILLPOINT_…`) or a file of the same lines."""

import difflib
import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from service import injected_names, settings_file
from service.settings_file import SettingsFileUnusable

PREFIX = "STILLPOINT_"
SETTINGS_FILE_VARIABLE = "STILLPOINT_SETTINGS_FILE"
SYSTEM_FILE = Path("/etc/stillpoint/stillpoint.env")
"""What the systemd units read. Shell commands read it too, or they would speak of another database than the service's."""
OF_THE_TESTS = ("STILLPOINT_TEST_", "STILLPOINT_LAB")
"""Names that are not settings: switches of the tests, which somebody may have exported."""
REMOVED = {"STILLPOINT_JOBS_PER_STORAGE": "it is not a setting any more, and never had an effect. Delete the line"}
"""Names that older files have."""
MAY_BE_BLANK = frozenset({"STILLPOINT_WRITER_RULES"})
_LIKENESS = 0.85
"""From here on two names are one with a slip of the pen (difflib's measure)."""
_LIKENESS_OF_STEMS = 0.7
"""The same for names that have our prefix: there is a mistake in any case, and the question is only which."""
_CLASS_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_HOST_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_DAY_S = 86_400


def _default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/stillpoint")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "stillpoint"


def _default_libvirt_uri() -> str:
    return "qemu:///system" if os.geteuid() == 0 else "qemu:///session"


class Settings(BaseModel):
    """Every setting with its default. Names in the environment are upper case with the prefix `STILLPOINT_`; `load_settings` reads them."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    state_dir: Path = Field(
        default_factory=_default_state_dir, description="Folder of the embedded database, the first token and the locks."
    )
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL. Default: SQLite in the state folder. PostgreSQL: postgresql+psycopg://…"
    )
    database_password: SecretStr | None = Field(
        default=None, description="The password of a PostgreSQL, as it is: in the URL its special characters would have to be encoded."
    )
    host_id: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=64,
        # It becomes a part of file names.
        pattern=r"^[^\x00-\x1f\x7f/]+$",
        description="The name of this host; its worker runs the jobs of its domains.",
    )
    libvirt_uri: str = Field(default_factory=_default_libvirt_uri, description="The libvirt that the worker connects to.")
    bind: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port that the API listens on; 0 takes a free one.")
    log_format: str = Field(default="auto", pattern="^(auto|json|console)$", description="auto: console on a terminal, else JSON.")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="Least level that is logged.")
    jobs_per_host: int = Field(default=4, ge=1, le=256, description="Jobs that run at once on this host.")
    lease_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="A worker that does not renew for this long has lost its jobs.",
    )
    poll_seconds: float = Field(
        default=1.0,
        ge=0.01,
        le=60,
        allow_inf_nan=False,
        description="How often a worker looks for jobs when nobody wakes it.",
    )
    inventory_seconds: float = Field(
        default=30.0,
        ge=0.1,
        le=3600,
        allow_inf_nan=False,
        description="How often a worker publishes its domains; libvirt's events publish sooner.",
    )
    shutdown_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="How long a stopping worker waits for its jobs to reach a safe point.",
    )
    overlay_dir: Path | None = Field(default=None, description="Folder for new overlays. Default: beside the disk.")
    overlay_reserve_bytes: int = Field(
        default=256 * 1024 * 1024, ge=0, le=2**50, description="Free space that must be left for each overlay before anything is frozen."
    )
    max_body_bytes: int = Field(default=64 * 1024, ge=1024, le=16 * 2**20, description="Largest request body that is read.")
    queued_per_domain: int = Field(
        default=200, ge=1, le=1_000_000, description="Jobs of one domain that may wait; more are refused. A thaw never is."
    )
    max_connections: int = Field(
        default=1000, ge=8, le=20_000, description="Connections that are open at once; never more than half of the open files allowed."
    )
    max_chain_depth: int = Field(default=16, ge=1, le=1000, description="Backing chain depth from which preflight warns.")
    writer_rules: dict[str, str] = Field(
        default_factory=dict, description='What a VSS writer that fails does to the verdict, by class id: {"a65faa63-…": "warns"}.'
    )
    writers_settle_seconds: float = Field(
        default=60.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="How long VSS writers may take after the thaw until their state is final.",
    )
    shortfall_pause_seconds: float = Field(
        default=600.0,
        ge=0,
        le=_DAY_S,
        allow_inf_nan=False,
        description="Pause before a job with `on_shortfall: retry` is tried again.",
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="A worker without API serves its own /metrics here, on `bind`."
    )

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

    @field_validator("bind")
    @classmethod
    def _address(cls, value: str) -> str:
        """An address or a host name. What C takes for an address as well is refused: `0` would be every address of the machine."""
        try:
            ipaddress.ip_address(value)
        except ValueError:
            if _is_old_address(value) or not _HOST_NAME.fullmatch(value):
                raise _unusable("it is neither an IP address such as 127.0.0.1 or ::1 nor a host name") from None
        return value

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


def _is_old_address(text: str) -> bool:
    try:
        socket.inet_aton(text)
    except OSError:
        return False
    return True


def _unusable(reason: str) -> PydanticCustomError:
    return PydanticCustomError("setting_invalid", "{reason}", {"reason": reason})


class SettingRefused(ValueError):
    """A setting that is not one, or that cannot be what was meant."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting
        self.reason = reason


def load_settings() -> Settings:
    """From the file that STILLPOINT_SETTINGS_FILE names, or else from the one of the systemd units; the environment wins over either.

    Raises SettingRefused, and pydantic's ValidationError for a value that cannot be used.
    """
    all_names = injected_names.without_them(os.environ)
    environment = {name.upper(): value for name, value in all_names.items() if name.upper().startswith(PREFIX)}
    path = environment.pop(SETTINGS_FILE_VARIABLE, None)
    if path is not None and not path.strip():
        raise SettingRefused(SETTINGS_FILE_VARIABLE, "it is blank; leave it out, or name a file")
    file = Path(path).expanduser() if path is not None else SYSTEM_FILE
    in_file = _from_file(file, must_exist=path is not None)
    _check_names(in_file, f" in {file}")
    _check_names((name for name in all_names if not name.upper().startswith(OF_THE_TESTS)), "")
    given = {name.upper(): value for name, value in in_file.items()} | environment
    _check_not_blank(given)
    values: dict[str, Any] = {field: given[name] for field, name in _names().items() if name in given}
    return Settings(**values)


def _names() -> dict[str, str]:
    return {field: PREFIX + field.upper() for field in Settings.model_fields}


def _from_file(path: Path, *, must_exist: bool) -> dict[str, str]:
    if not must_exist and os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        # systemd has read the unit's file for us, and the unit's user may not be allowed to.
        return {}
    try:
        return settings_file.read(path)
    except FileNotFoundError:
        if must_exist:
            raise SettingRefused(SETTINGS_FILE_VARIABLE, f"there is no file {path}") from None
        return {}
    except SettingsFileUnusable as error:
        hint = "" if must_exist else f"; use sudo, or set {SETTINGS_FILE_VARIABLE}=/dev/null to do without it"
        raise SettingRefused(SETTINGS_FILE_VARIABLE, f"{error}{hint}") from error


def _check_names(names: Iterable[str], where: str) -> None:
    """A name of ours that is not a setting, or a name that is one but for a slip, is an error: it would change nothing, silently."""
    known = {*_names().values(), SETTINGS_FILE_VARIABLE}
    for name in names:
        upper = name.upper()
        if upper in REMOVED:
            raise SettingRefused(f"{name}{where}", REMOVED[upper])
        meant = _meant(upper, known, in_file=bool(where))
        if (upper.startswith(PREFIX) and upper not in known) or meant is not None:
            hint = f"; did you mean {meant}?" if meant is not None else ""
            raise SettingRefused(f"{name}{where}", f"there is no such setting{hint}")
        if where and upper == SETTINGS_FILE_VARIABLE:
            raise SettingRefused(f"{name}{where}", "a settings file cannot name another one")


def _meant(name: str, known: set[str], *, in_file: bool) -> str | None:
    """The setting that a name that is not one was meant to be."""
    if name in known:
        return None
    if in_file and PREFIX + name in known:
        return PREFIX + name
    if not name.startswith(PREFIX):
        return next(iter(difflib.get_close_matches(name, known, 1, _LIKENESS)), None)
    stems = [one.removeprefix(PREFIX) for one in known]
    return next((PREFIX + stem for stem in difflib.get_close_matches(name.removeprefix(PREFIX), stems, 1, _LIKENESS_OF_STEMS)), None)


def _check_not_blank(given: Mapping[str, str]) -> None:
    for name, value in given.items():
        if not value.strip() and name not in MAY_BE_BLANK:
            raise SettingRefused(name, "it is blank; leave the line out for the default")
