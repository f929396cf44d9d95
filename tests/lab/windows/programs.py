"""guest-exec on the simulated Windows: vssadmin, reg, wevtutil, PowerShell for the volumes, and what a scenario adds."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.lab.windows.eventlog import EventLog
from tests.lab.windows.language import LANGUAGES
from tests.lab.windows.scenario import Program, Scenario
from tests.lab.windows.sqlserver import SqlServer
from tests.lab.windows.storage import GuestVolume
from tests.lab.windows.vssadmin import Vssadmin

_FIRST_PID = 4712
# From here on an exit code of Windows is an exception, which the agent reports as a signal.
_FIRST_SIGNAL = 0xC0000000
_VSS_KEY = r"SYSTEM\CurrentControlSet\Services\QEMU Guest Agent VSS Provider"
DRIVE_REMOVABLE, DRIVE_FIXED = 2, 3
_HIVES = ("HKLM\\", "HKEY_LOCAL_MACHINE\\")


class NoSuchProgram(Exception):
    """Windows finds no file of that name."""


@dataclass
class Process:
    """`polls_left`: how often its status is still `not yet`."""

    exit_code: int
    output: bytes = b""
    error_output: bytes = b""
    polls_left: int = 1
    is_cut: bool = False

    def status(self, *, captured: bool, always_says_truncated: bool) -> dict[str, Any]:
        document: dict[str, Any] = {"exited": True}
        document["signal" if self.exit_code >= _FIRST_SIGNAL else "exitcode"] = self.exit_code
        for key, data, is_cut in (("out", self.output, self.is_cut), ("err", self.error_output, False)):
            if not captured or not data:
                continue
            document[f"{key}-data"] = base64.b64encode(data).decode()
            if always_says_truncated:
                document[f"{key}-truncated"] = is_cut
            elif is_cut:
                document[f"{key}-truncated"] = False  # the old agents' bug: the key alone says it
        return document


@dataclass
class Programs:
    scenario: Scenario
    eventlog: EventLog
    #: What Windows tells of its volumes; None: there is no PowerShell.
    volumes: Sequence[GuestVolume] | None = None
    vssadmin: Vssadmin = field(init=False)
    #: What was started, as one command line each.
    started: list[str] = field(default_factory=list)
    _processes: dict[int, tuple[Process, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vssadmin = Vssadmin(self.scenario)

    def start(self, path: str, arguments: Sequence[str], rounds: int, *, captured: bool) -> int:
        """The process id. Raises NoSuchProgram."""
        process = self._run(path, arguments, rounds)
        pid = _FIRST_PID + 4 * len(self.started)
        self.started.append(" ".join([path, *arguments]))
        self._processes[pid] = (process, captured)
        return pid

    def status(self, pid: int, *, always_says_truncated: bool) -> dict[str, Any] | None:
        """None: no such process, or its end was told before."""
        if pid not in self._processes:
            return None
        process, captured = self._processes[pid]
        if process.polls_left > 0:
            process.polls_left -= 1
            return {"exited": False}
        del self._processes[pid]
        return process.status(captured=captured, always_says_truncated=always_says_truncated)

    def _run(self, path: str, arguments: Sequence[str], rounds: int) -> Process:
        name = path.replace("/", "\\").rpartition("\\")[2].lower().removesuffix(".exe")
        for program in self.scenario.programs:
            if _is_meant(program, name, arguments):
                return Process(program.exit_code, self._encoded(program.output), self._encoded(program.error_output), program.polls)
        if name == "vssadmin":
            return self._vssadmin(arguments, rounds)
        if name == "reg":
            return self._reg(arguments)
        if name == "wevtutil":
            exit_code, output, error_output = self.eventlog.query(arguments)
            process = Process(exit_code, self._encoded(output), self._encoded(error_output), self.scenario.eventlog.polls)
            return _cut(process, self.scenario.eventlog.cut_at_bytes)
        if name in ("sqlcmd", "sc"):
            sql = SqlServer(self.scenario)
            exit_code, output = sql.sqlcmd(arguments) if name == "sqlcmd" else sql.service(arguments[1])
            return Process(exit_code, self._encoded(output))
        if name == "powershell" and "Win32_Volume" in " ".join(arguments) and self.volumes is not None:
            lines = [f"{volume.name} {DRIVE_FIXED if volume.fixed else DRIVE_REMOVABLE}\r\n" for volume in self.volumes]
            return Process(0, self._encoded("".join(lines)))
        raise NoSuchProgram(path)

    def _vssadmin(self, arguments: Sequence[str], rounds: int) -> Process:
        if [word.lower() for word in arguments] != ["list", "writers"]:
            return Process(2, self._encoded("Error: Invalid command.\r\n"))
        plan = self.scenario.vssadmin
        output = self._encoded(self.vssadmin.list_writers(rounds))
        return _cut(Process(self.vssadmin.exit_code(), output, polls_left=plan.polls), plan.cut_at_bytes)

    def _reg(self, arguments: Sequence[str]) -> Process:
        registry = self.scenario.registry
        instances = SqlServer(self.scenario).registry(arguments[1]) if len(arguments) == 2 else None
        if instances is not None:
            return Process(0, self._encoded(instances))
        if not _asks_vss_option(arguments) or registry.vss_option == "absent":
            message = LANGUAGES[self.scenario.system.language].no_registry_value
            return Process(1, error_output=self._encoded(f"{message}\r\n"))
        option = registry.vss_option
        value = f"0x{option:x}" if isinstance(option, int) else option
        lines = ["", f"HKEY_LOCAL_MACHINE\\{_VSS_KEY}", f"    VssOption    {registry.value_type}    {value}", "", ""]
        return Process(0, self._encoded("\r\n".join(lines)))

    def _encoded(self, text: str) -> bytes:
        code_page = self.scenario.system.code_page or LANGUAGES[self.scenario.system.language].code_page
        return text.encode(code_page, errors="replace")  # Windows puts a question mark too


def _cut(process: Process, at_bytes: int | None) -> Process:
    if at_bytes is not None and len(process.output) > at_bytes:
        process.output, process.is_cut = process.output[:at_bytes], True
    return process


def _is_meant(program: Program, name: str, arguments: Sequence[str]) -> bool:
    line = " ".join(arguments)
    return program.name.lower().removesuffix(".exe") == name and all(word in line for word in program.arguments)


def _asks_vss_option(arguments: Sequence[str]) -> bool:
    if len(arguments) != 4 or arguments[0].lower() != "query":
        return False
    key, switch, value = arguments[1:]
    keys = [f"{hive}{_VSS_KEY}".lower() for hive in _HIVES]
    return key.lower() in keys and switch.lower() == "/v" and value.lower() == "vssoption"
