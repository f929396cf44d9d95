"""Which instances and databases of SQL Server a guest has: what must be in its events for them to prove a freeze."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.model.windows import oem_text

DEFAULT_INSTANCE = "MSSQLSERVER"
SYSTEM_DATABASES = ("master", "model", "msdb")
"""Every instance has them, and a backup through VSS freezes them with the others; tempdb is in no backup."""
_INTERNAL = "MICROSOFT##"
"""Windows' own databases (WID): another writer stands for them."""

DATABASES_QUERY = (
    "SET NOCOUNT ON; SELECT CONVERT(varchar(514), CONVERT(varbinary(256), name), 2) FROM sys.databases "
    "WHERE state = 0 AND database_id <> 2 AND source_database_id IS NULL"
)
"""The names of databases that are online, without tempdb and database snapshots; as hexadecimal digits, so in no code page."""


class InstanceState(StrEnum):
    listed = "listed"
    stopped = "stopped"
    """Its service does not run: its files stand still, and it writes no event."""
    unknown = "unknown"


@dataclass(frozen=True)
class SqlInstance:
    """`databases` None: they could not be asked for."""

    name: str
    state: InstanceState
    databases: tuple[str, ...] | None = None

    @property
    def source(self) -> str:
        return source_of(self.name)

    def as_document(self) -> dict[str, Any]:
        databases = list(self.databases) if self.databases is not None else None
        return {"instance": self.name, "state": self.state.value, "databases": databases}


def source_of(instance: str) -> str:
    """The provider of its events, which is also the name of its service."""
    return DEFAULT_INSTANCE if instance.upper() == DEFAULT_INSTANCE else f"MSSQL${instance}"


def is_source(provider: str) -> bool:
    """Whether an event of this provider is of an instance that SQL Server's writer stands for."""
    default, name = provider.upper() == DEFAULT_INSTANCE, provider[len("MSSQL$") :]
    is_named = provider.upper().startswith("MSSQL$") and bool(name) and not name.upper().startswith(_INTERNAL)
    return default or is_named


# --- what the guest's programs print --------------------------------------------------------------

_VALUE = re.compile(r"^\s+(\S+)\s+REG_SZ\s+\S")
_NAME = re.compile(r"(?:[0-9A-Fa-f]{4}){1,128}")
_SERVICE_LINE = re.compile(r":\s*(\d+)\s+[A-Z]")
_STOPPED = 1


def instances_in(output: bytes) -> list[str]:
    """`reg query` of the key that names each instance as a value."""
    matches = (_VALUE.match(line) for line in oem_text.decode(output).text.splitlines())
    return [match[1] for match in matches if match is not None and not match[1].upper().startswith(_INTERNAL)]


def databases_in(output: bytes) -> tuple[str, ...] | None:
    """The names that `sqlcmd` prints for `DATABASES_QUERY`. None: the output has another form, or is empty. An instance has databases."""
    lines = [line.strip() for line in output.decode("ascii", errors="replace").splitlines() if line.strip()]
    if not lines or not all(_NAME.fullmatch(line) for line in lines):
        return None
    return tuple(bytes.fromhex(line).decode("utf-16-le", errors="replace") for line in lines)


def is_stopped(output: bytes) -> bool:
    """`sc query`: the second line with a number is the state, whatever its label is called."""
    numbers = [int(match[1]) for line in oem_text.decode(output).text.splitlines() if (match := _SERVICE_LINE.search(line))]
    return len(numbers) > 1 and numbers[1] == _STOPPED
