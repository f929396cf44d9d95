"""The simulated agent itself: one line in, lines out, one command at a time."""

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab.windows.clock import Clock, ScaledClock
from tests.lab.windows.commands import FREEZE_COMMANDS, WHILE_FROZEN, known, supported_commands
from tests.lab.windows.eventlog import EventLog
from tests.lab.windows.programs import NoSuchProgram, Programs
from tests.lab.windows.replies import AgentError, Outcome, Reply, on_the_wire
from tests.lab.windows.scenario import Scenario
from tests.lab.windows.storage import GuestDisk, disk_list, fsinfo, invented_disks, volumes_of
from tests.lab.windows.systems import SYSTEMS, osinfo
from tests.lab.windows.versions import agent_version
from tests.lab.windows.vss import Session, Vss

SYNC_MARK = b"\xff"
_STRAY_MARK = AgentError("GenericError", "JSON parse error, stray '\ufffd'")
_CAPTURE_MODES = ("none", "stdout", "stderr", "separated")


@dataclass(frozen=True)
class Request:
    """What came in and when the agent began with it, in guest seconds."""

    name: str
    arguments: dict[str, Any]
    at: float


class WindowsAgent:
    """Give it lines in the order in which they arrive. It never waits: its replies say when they are due."""

    def __init__(self, scenario: Scenario, *, clock: Clock | None = None, disks: Sequence[GuestDisk] | None = None) -> None:
        self.scenario = scenario
        self.clock = clock or ScaledClock()
        self.version = agent_version(scenario.agent.version)
        self.disks = list(disks) if disks is not None else invented_disks(1)
        self.volumes = volumes_of(scenario.storage, self.disks)
        self.vss = Vss(scenario, self.version, self.volumes)
        self.eventlog = EventLog(scenario)
        self.programs = Programs(scenario, self.eventlog, self.volumes if scenario.storage.powershell else None)
        self.commands: list[str] = []
        self._busy_until = 0.0
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def sessions(self) -> list[Session]:
        """Each freeze that held writes, with the truth about how long."""
        return self.vss.sessions

    def holds_writes(self) -> bool:
        """Whether volsnap holds writes now, which guest-fsfreeze-status does not tell."""
        return self.vss.holds_writes(self.clock.now())

    def says_frozen(self) -> bool:
        return self.vss.is_frozen

    def handle_line(self, line: bytes) -> list[Reply]:
        """The answers to one line. A command that arrives while another is being worked on waits for its turn."""
        with self._lock:
            now = self.clock.now()
            begins = max(now, self._busy_until)
            outcomes, is_delimited = self._outcomes(line.strip(b"\r\n"), begins)
            replies = []
            for number, outcome in enumerate(outcomes):
                begins += outcome.seconds
                is_last = number == len(outcomes) - 1
                mark = SYNC_MARK if is_delimited and is_last else b""
                if math.isfinite(begins):
                    replies.append(Reply(begins - now, mark + on_the_wire(outcome.document())))
            self._busy_until = max(self._busy_until, begins)
            return replies

    def _outcomes(self, line: bytes, at: float) -> tuple[list[Outcome], bool]:
        """Outcomes in order, and whether the last one is announced by the mark."""
        if self.vss.restart_if_due(at) and self.vss.restarted_s is not None:
            self.eventlog.io_resumed(self.vss.restarted_s)
        if self.vss.is_away(at):
            return [], False
        stray = [Outcome(0.0, error=_STRAY_MARK)] if SYNC_MARK in line else []
        text = line.replace(SYNC_MARK, b"").strip()
        if not text:
            return stray, False
        request = _request(text, at)
        if isinstance(request, AgentError):
            return [*stray, Outcome(0.0, error=request)], False
        self.commands.append(request.name)
        outcome = self._answer(request)
        self._counts[request.name] += 1
        if any(lost.command == request.name and lost.nth == self._counts[request.name] for lost in self.scenario.lost_replies):
            return stray, False
        return [*stray, outcome], request.name == "guest-sync-delimited"

    def _answer(self, request: Request) -> Outcome:
        latency_s = self.scenario.agent.latency_s
        refusal = self._refusal(request.name)
        if refusal is not None:
            return Outcome(latency_s, error=refusal)
        handler = self._handlers().get(request.name)
        if handler is None:
            return Outcome(latency_s, error=AgentError("GenericError", "this feature or command is not currently supported"))
        try:
            return handler(request)
        except KeyError as missing:
            return Outcome(latency_s, error=AgentError("GenericError", f"Parameter {missing} is missing"))

    def _handlers(self) -> dict[str, Callable[[Request], Outcome]]:
        return {
            "guest-ping": lambda _: self._done({}),
            "guest-info": lambda _: self._done(self._info()),
            "guest-sync": lambda request: self._done(request.arguments["id"]),
            "guest-sync-delimited": lambda request: self._done(request.arguments["id"]),
            "guest-get-osinfo": lambda _: self._done(self._osinfo()),
            "guest-get-host-name": lambda _: self._done({"host-name": "WIN-LAB"}),
            "guest-get-time": lambda request: self._done(int((1_772_330_400 + request.at) * 1e9)),
            "guest-get-fsinfo": lambda _: self._done(fsinfo(self.scenario.storage, self.disks, self.volumes, self.version.generation)),
            "guest-get-disks": lambda _: self._done(disk_list(self.scenario.storage, self.disks, self.version.generation)),
            "guest-fsfreeze-status": lambda _: self._done("frozen" if self.vss.is_frozen else "thawed"),
            "guest-fsfreeze-freeze": lambda request: self._freeze(request, None),
            "guest-fsfreeze-freeze-list": lambda request: self._freeze(request, request.arguments.get("mountpoints")),
            "guest-fsfreeze-thaw": self._thaw,
            "guest-exec": self._exec,
            "guest-exec-status": self._exec_status,
        }

    # --- refusals -------------------------------------------------------------------------------

    def _refusal(self, name: str) -> AgentError | None:
        command = known(name, self.version.generation)
        if command is None or not (command.on_windows or self.version.lists_unsupported_commands):
            return AgentError("CommandNotFound", f"The command {name} has not been found")
        if self.vss.is_frozen and name not in WHILE_FROZEN:
            return AgentError("CommandNotFound", self.version.disabled_while_frozen(name))
        if not command.on_windows or name in self.scenario.agent.blocked:
            return AgentError("CommandNotFound", self.version.disabled(name))
        return self._refusal_without_vss(name) if self.scenario.agent.vss == "dead" else None

    def _refusal_without_vss(self, name: str) -> AgentError | None:
        if not self.version.disables_freeze_without_vss:
            error = AgentError("GenericError", "fsfreeze not possible as VSS failed to initialize")
            return error if name in FREEZE_COMMANDS else None
        if name == "guest-fsfreeze-freeze-list":  # forgotten in the agent's own list
            return AgentError("GenericError", "this feature or command is not currently supported")
        is_disabled = name in FREEZE_COMMANDS or name == "guest-get-fsinfo"
        return AgentError("CommandNotFound", self.version.disabled(name)) if is_disabled else None

    def _is_enabled(self, name: str) -> bool:
        refusal = self._refusal(name)
        return refusal is None or refusal.error_class == "GenericError"

    # --- commands -------------------------------------------------------------------------------

    def _done(self, value: Any) -> Outcome:
        return Outcome(self.scenario.agent.latency_s, value)

    def _info(self) -> dict[str, Any]:
        generation = self.version.generation
        listed = supported_commands(generation, {}, unsupported_too=True)
        enabled = {str(entry["name"]): self._is_enabled(str(entry["name"])) for entry in listed}
        commands = supported_commands(generation, enabled, unsupported_too=self.version.lists_unsupported_commands)
        return {"version": self.version.text, "supported_commands": commands}

    def _osinfo(self) -> dict[str, str]:
        document = osinfo(SYSTEMS[self.scenario.system.name], self.version.generation) | self.scenario.system.osinfo
        return {key: value for key, value in document.items() if value}

    def _freeze(self, request: Request, mountpoints: list[str] | None) -> Outcome:
        held = len(self.vss.sessions)
        outcome = self.vss.freeze(request.at, mountpoints)
        if len(self.vss.sessions) > held:
            self.eventlog.io_frozen(self.vss.sessions[-1].began_s)
        return outcome

    def _thaw(self, request: Request) -> Outcome:
        had_session = self.vss.sessions and self.vss.sessions[-1].thawed_s is None
        outcome = self.vss.thaw(request.at)
        if had_session:
            self.eventlog.io_resumed(self.vss.sessions[-1].writes_released_s)
        return outcome

    def _exec(self, request: Request) -> Outcome:
        captured = request.arguments.get("capture-output", False)
        is_mode = self.version.knows_capture_modes and captured in _CAPTURE_MODES
        if not isinstance(captured, bool) and not is_mode:
            wrong = "Invalid parameter type for 'capture-output', expected: boolean"
            return Outcome(self.scenario.agent.latency_s, error=AgentError("GenericError", wrong))
        path = request.arguments["path"]
        words = request.arguments.get("arg", [])
        try:
            pid = self.programs.start(path, words, self.vss.rounds, captured=captured not in (False, "none"))
        except NoSuchProgram:
            desc = "Guest agent command failed, error was 'Failed to execute helper program (No such file or directory)'"
            return Outcome(self.scenario.agent.latency_s, error=AgentError("GenericError", desc))
        return self._done({"pid": pid})

    def _exec_status(self, request: Request) -> Outcome:
        plan = self.scenario.agent.truncated_key
        always = self.version.always_says_truncated if plan == "by_version" else plan == "always"
        status = self.programs.status(request.arguments["pid"], always_says_truncated=always)
        if status is None:
            return Outcome(self.scenario.agent.latency_s, error=AgentError("GenericError", self.version.unknown_pid()))
        return self._done(status)


def _request(text: bytes, at: float) -> Request | AgentError:
    try:
        document = json.loads(text)
    except ValueError:
        return AgentError("GenericError", "JSON parse error, expecting value")
    if not isinstance(document, dict) or not isinstance(document.get("execute"), str):
        return AgentError("GenericError", "QMP input lacks member 'execute'")
    return Request(document["execute"], document.get("arguments", {}), at)
