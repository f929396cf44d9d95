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
"""The file that the systemd units read. Shell commands read the file too, so that they use the database of the service."""
OF_THE_TESTS = ("STILLPOINT_TEST_", "STILLPOINT_LAB")
"""Prefixes of names that are not settings: switches of the tests, which a shell may have exported."""
OF_THE_COMMANDS = frozenset({"STILLPOINT_URL", "STILLPOINT_TOKEN"})
"""Names that are not settings: where the service of a command listens, and the token that the command uses."""
REMOVED = {"STILLPOINT_JOBS_PER_STORAGE": "it is not a setting any more, and never had an effect. Delete the line"}
"""Names of removed settings, which older files have."""
BLANK = "it is blank; remove the line to use the default"
MAY_BE_BLANK = frozenset({"STILLPOINT_KEY_COMMANDS", "STILLPOINT_WRITER_RULES"})
_LIKENESS = 0.85
"""difflib's ratio. Names that are at least so similar count as one name with a typing error."""
_LIKENESS_OF_STEMS = 0.7
"""The same for names with our prefix, which are wrong in any case: a lower ratio is enough to suggest a name."""
_CLASS_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_HOST_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_DAY_S = 86_400
_MAX_DAYS = 36_500
"""Days. A setting with a longer time is refused."""


def _default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/stillpoint")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "stillpoint"


def _default_libvirt_uri() -> str:
    return "qemu:///system" if os.geteuid() == 0 else "qemu:///session"


def _kept(days: int, what: str) -> Any:
    return Field(default=days, ge=0, le=_MAX_DAYS, description=f"{what}; 0: for ever.")


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
        default=None, description="Password of a PostgreSQL database, not encoded. In the URL, special characters must be encoded."
    )
    host_id: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=64,
        # The name becomes a part of file names.
        pattern=r"^[^\x00-\x1f\x7f/]+$",
        description="Name of this host. The worker of this name runs the jobs of the host's domains.",
    )
    libvirt_uri: str = Field(default_factory=_default_libvirt_uri, description="The libvirt that the worker connects to.")
    bind: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port that the API listens on. 0: any free port.")
    log_format: str = Field(default="auto", pattern="^(auto|json|console)$", description="auto: console on a terminal, else JSON.")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="Lowest level that is logged.")
    jobs_per_host: int = Field(default=4, ge=1, le=256, description="Jobs that freeze or look at a guest, at once on this host.")
    lease_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="A worker that does not renew its lease for so many seconds loses its jobs.",
    )
    poll_seconds: float = Field(
        default=1.0,
        ge=0.01,
        le=60,
        allow_inf_nan=False,
        description="Seconds between two looks of a worker for new jobs. A new job usually wakes the worker before.",
    )
    inventory_seconds: float = Field(
        default=30.0,
        ge=0.1,
        le=3600,
        allow_inf_nan=False,
        description="Seconds between two publications of a host's domains. Events of libvirt publish a domain at once.",
    )
    shutdown_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds that a stopping worker waits until its jobs reach a safe point.",
    )
    overlay_dir: Path | None = Field(default=None, description="Folder for new overlays. Default: the folder of the disk.")
    overlay_reserve_bytes: int = Field(
        default=256 * 1024 * 1024, ge=0, le=2**50, description="Free space that must be left for each overlay before anything is frozen."
    )
    max_body_bytes: int = Field(default=2**20, ge=1024, le=16 * 2**20, description="Largest request body that is read.")
    transfers_per_host: int = Field(default=4, ge=1, le=256, description="Backups and restores that copy at once on this host.")
    repository_silence_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="Seconds without a sign from a repository's storage until a step there is given up.",
    )
    repository_patience_seconds: float = Field(
        default=600.0,
        ge=0,
        le=_DAY_S,
        allow_inf_nan=False,
        description="Seconds that a backup whose point was taken waits for a repository that is full, gone or does not answer.",
    )
    key_commands: str = Field(
        default="",
        description="Programs that may print the key of a repository (`key: command:…`): absolute paths with a colon between them. "
        "Every holder of a token can start them as the user of the worker, with any arguments. Default: none.",
    )
    proof_days: float = Field(
        default=7.0,
        ge=0,
        le=3650,
        allow_inf_nan=False,
        description="Days for which a read of all bytes of a point stands for the point, as long as no file of the point was changed.",
    )
    repository_look_seconds: float = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        allow_inf_nan=False,
        description="Seconds between two looks of a worker at each repository of its host.",
    )
    queued_per_domain: int = Field(
        default=200, ge=1, le=1_000_000, description="Jobs of one domain that may wait. More jobs are refused, except a thaw."
    )
    scheduler: str = Field(
        default="on",
        pattern="^(on|off)$",
        description="off: this process begins no run of a policy. What no process begins is missed, or made up for later.",
    )
    max_connections: int = Field(
        default=1000, ge=8, le=20_000, description="Connections that may be open at once, and at most half of the limit of open files."
    )
    max_chain_depth: int = Field(
        default=16, ge=1, le=1000, description="Files below the active file of a disk from which on snapshots are refused."
    )
    writer_rules: dict[str, str] = Field(
        default_factory=dict, description='Effect of a failed VSS writer on the verdict, by class id: {"a65faa63-…": "warns"}.'
    )
    writers_settle_seconds: float = Field(
        default=60.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds that VSS writers may need after the thaw until their state is final.",
    )
    shortfall_pause_seconds: float = Field(
        default=600.0,
        ge=0,
        le=_DAY_S,
        allow_inf_nan=False,
        description="Seconds before a job with `on_shortfall: retry` is tried again.",
    )
    keep_jobs_days: int = _kept(365, "Days that a finished job is kept; one that has a recovery point stays")
    keep_evidence_days: int = _kept(90, "Days that the raw texts in a job's evidence are kept; its verdict and reasons stay")
    keep_events_days: int = _kept(365, "Days that events are kept: what became of each job and recovery point, and when")
    keep_gates_days: int = _kept(30, "Days that the gate of a quiesce job is kept after the job has ended")
    keep_tokens_days: int = _kept(90, "Days that a token is kept which was revoked or has expired")
    keep_hosts_days: int = _kept(90, "Days that a silent host is kept of which there is neither a job nor a recovery point")
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port for /metrics of a worker without an API, on the address `bind`."
    )

    @property
    def key_programs(self) -> tuple[str, ...]:
        return tuple(path for path in self.key_commands.split(":") if path)

    @field_validator("key_commands")
    @classmethod
    def _programs(cls, value: str) -> str:
        """Raises PydanticCustomError."""
        relative = [path for path in value.split(":") if path and not path.startswith("/")]
        if relative:
            raise _unusable(f"{relative[0]} is not an absolute path")
        return value

    @field_validator("writer_rules", mode="before")
    @classmethod
    def _rules(cls, value: Any) -> dict[str, str]:
        """Raises PydanticCustomError."""
        try:
            rules = json.loads(value or "{}") if isinstance(value, str) else value
        except ValueError as error:
            raise _unusable(f"it is not JSON: {error}") from error
        if not isinstance(rules, dict):
            raise _unusable("it must be a JSON object of class ids and effects")
        # A mistyped id would never match a writer, and would do nothing without notice.
        known = {str(class_id).strip("{} ").lower(): str(effect) for class_id, effect in rules.items()}
        wrong = [class_id for class_id in known if not _CLASS_ID.fullmatch(class_id)]
        if wrong:
            raise _unusable(f"{wrong[0]} is not a class id such as a65faa63-5ea8-4ebc-9dbd-a0c4db26912a")
        return known

    @field_validator("bind")
    @classmethod
    def _address(cls, value: str) -> str:
        """An address or a host name. Old forms of addresses are refused: `0` would mean every address of the machine."""
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
    """A name that is not a setting, or a setting with a value that cannot be right."""

    def __init__(self, setting: str, reason: str, meant: str | None = None) -> None:
        """`meant`: the name that was probably meant."""
        super().__init__(f"{setting}: {reason}")
        self.setting = setting
        self.reason = reason
        self.meant = meant


def load_settings() -> Settings:
    """Settings from the file that STILLPOINT_SETTINGS_FILE names, or else from the file of the systemd units. The environment wins.

    Raises SettingRefused, and pydantic's ValidationError for a value that cannot be used.
    """
    all_names = injected_names.without_them(os.environ)
    all_names = {name: value for name, value in all_names.items() if name.upper() not in OF_THE_COMMANDS}
    environment = {name.upper(): value for name, value in all_names.items() if name.upper().startswith(PREFIX)}
    path = environment.pop(SETTINGS_FILE_VARIABLE, None)
    if path is not None and not path.strip():
        raise SettingRefused(SETTINGS_FILE_VARIABLE, "it is blank; remove it, or name a file")
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
        # systemd has read the unit's file already, and the unit's user may not be allowed to read the file.
        return {}
    try:
        return settings_file.read(path)
    except FileNotFoundError:
        if must_exist:
            raise SettingRefused(SETTINGS_FILE_VARIABLE, f"the file {path} does not exist") from None
        return {}
    except SettingsFileUnusable as error:
        hint = "" if must_exist else f"; use sudo, or set {SETTINGS_FILE_VARIABLE}=/dev/null to ignore the file"
        raise SettingRefused(SETTINGS_FILE_VARIABLE, f"{error}{hint}") from error


def _check_names(names: Iterable[str], where: str) -> None:
    """Refuse a name with our prefix that is not a setting, and a name that looks like a mistyped setting: both would have no effect."""
    known = {*_names().values(), SETTINGS_FILE_VARIABLE}
    for name in names:
        upper = name.upper()
        if upper in REMOVED:
            raise SettingRefused(f"{name}{where}", REMOVED[upper])
        meant = _meant(upper, known, in_file=bool(where))
        if (upper.startswith(PREFIX) and upper not in known) or meant is not None:
            hint = f"; did you mean {meant}?" if meant is not None else ""
            raise SettingRefused(f"{name}{where}", f"unknown setting{hint}", meant)
        if where and upper == SETTINGS_FILE_VARIABLE:
            raise SettingRefused(f"{name}{where}", "a settings file cannot name another settings file")


def _meant(name: str, known: set[str], *, in_file: bool) -> str | None:
    """The setting that a mistyped name was meant to be; None: the name is right, or resembles no setting."""
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
            raise SettingRefused(name, BLANK)
