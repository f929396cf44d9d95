"""Reads raw texts inside a Windows guest through guest-exec: writers, VssOption, volumes, SQL Server's events. The model judges them.

guest-exec works only while the guest is thawed (F§0.4). The status of an ended program can be read once (F§3), so a lost reply means a
lost output. It is reported as lost, and the program is not run again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import StillpointError
from service.hypervisor.exec_result import ExecResult
from service.hypervisor.guest import Guest
from service.model.windows.sql_server import DATABASES_QUERY, DEFAULT_INSTANCE

WRITERS_BUDGET_MS = 60_000
"""Milliseconds for `vssadmin list writers`. At the limit the writers count as not readable."""
QUERY_BUDGET_MS = 20_000
"""Milliseconds for one other program. At the limit its output counts as not readable."""
VOLUMES_BUDGET_MS = 60_000
"""Milliseconds. PowerShell needs many seconds to start in a busy guest. At the limit the drive types count as unknown."""
VSS_PROVIDER_KEY = r"HKLM\SYSTEM\CurrentControlSet\Services\QEMU Guest Agent VSS Provider"
SQL_EVENT_IDS = (3197, 3198)
"""I/O is frozen on a database; I/O was resumed. Ids and numbers are the same in every language."""
MAX_EVENTS = 256
"""Events in one reading. Further events are read with the next reading."""
SQL_INSTANCES_KEYS = (
    r"HKLM\SOFTWARE\Microsoft\Microsoft SQL Server\Instance Names\SQL",
    r"HKLM\SOFTWARE\Wow6432Node\Microsoft\Microsoft SQL Server\Instance Names\SQL",
)


@dataclass(frozen=True)
class ProgramOutput:
    """`problem` None: the program ended with exit code 0 and `output` is all that it wrote."""

    output: bytes
    exit_code: int | None
    cut_off: bool
    problem: str | None


def list_writers(guest: Guest) -> ProgramOutput:
    """`vssadmin list writers`: indirect evidence about writers, gathered by another process (F§5.3)."""
    return _run(guest, "vssadmin.exe", ["list", "writers"], WRITERS_BUDGET_MS)


def query_vss_option(guest: Guest) -> ProgramOutput:
    """The registry value that decides the backup type (F§1.7); exit code 1: it is not there."""
    return _run(guest, "reg.exe", ["query", VSS_PROVIDER_KEY, "/v", "VssOption"], QUERY_BUDGET_MS)


def list_volume_kinds(guest: Guest) -> ProgramOutput:
    """Every volume with the number of its drive type, the same in every language: what the agent freezes by (F§1.1)."""
    command = "Get-WmiObject Win32_Volume | ForEach-Object { $_.DeviceID + ' ' + $_.DriveType }"
    return _run(guest, "powershell.exe", ["-NoProfile", "-NonInteractive", "-Command", command], VOLUMES_BUDGET_MS)


def newest_application_event(guest: Guest) -> ProgramOutput:
    """The newest event of the Application log as XML: what follows it belongs to this job."""
    return _run(guest, "wevtutil.exe", ["qe", "Application", "/c:1", "/rd:true", "/f:xml"], QUERY_BUDGET_MS)


def sql_events_after(guest: Guest, record_id: int) -> ProgramOutput:
    """SQL Server's freeze and thaw events with a higher EventRecordID, by id and number and never by text."""
    ids = " or ".join(f"EventID={event_id}" for event_id in SQL_EVENT_IDS)
    query = f"*[System[({ids}) and (EventRecordID>{record_id})]]"
    return _run(guest, "wevtutil.exe", ["qe", "Application", f"/q:{query}", "/f:xml", f"/c:{MAX_EVENTS}"], QUERY_BUDGET_MS)


def query_sql_instances(guest: Guest) -> Iterator[ProgramOutput]:
    """The instances of SQL Server that are installed, of 64 and of 32 bits; exit code 1: there are none."""
    for key in SQL_INSTANCES_KEYS:
        yield _run(guest, "reg.exe", ["query", key], QUERY_BUDGET_MS)


def list_databases(guest: Guest, instance: str) -> ProgramOutput:
    """`sqlcmd`, as the account of the agent: who may log in at all sees the names of all databases."""
    server = "." if instance.upper() == DEFAULT_INSTANCE else f".\\{instance}"
    # -b: an error is an exit code. -C: the certificate of this very machine is not asked for. No headers, no padding.
    options = ["-S", server, "-E", "-C", "-b", "-l", "5", "-t", "10", "-h", "-1", "-W", "-Q", DATABASES_QUERY]
    return _run(guest, "sqlcmd.exe", options, QUERY_BUDGET_MS)


def query_service(guest: Guest, name: str) -> ProgramOutput:
    return _run(guest, "sc.exe", ["query", name], QUERY_BUDGET_MS)


def _run(guest: Guest, program: str, arguments: list[str], budget_ms: int) -> ProgramOutput:
    try:
        result = guest.execute(program, arguments, budget_ms=budget_ms)
    except StillpointError as error:
        return ProgramOutput(b"", None, cut_off=False, problem=f"{error.code}: {error.detail}")
    return ProgramOutput(result.output, result.exit_code, result.is_cut_off, _problem(program, result))


def _problem(program: str, result: ExecResult) -> str | None:
    if result.signal is not None:
        # On Windows an exit code from 0xC0000000 on is reported as a signal (F§3).
        return f"{program} died with 0x{result.signal & 0xFFFFFFFF:08x}"
    if result.exit_code != 0:
        return f"{program} exited with {result.exit_code}"
    return None
