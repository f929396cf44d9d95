"""A conversation with a simulated agent in which no real time passes."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from tests.lab.windows.agent import WindowsAgent
from tests.lab.windows.clock import ManualClock
from tests.lab.windows.scenario import Scenario, load
from tests.lab.windows.storage import invented_disks


class Talk:
    """`ask` waits, on the guest's own clock, until the answer is there; `elapsed_s` is how long the last one took."""

    def __init__(self, scenario: str | Scenario = "healthy-2022", changes: Mapping[str, Any] | None = None, *, disks: int = 2) -> None:
        loaded = load(scenario, changes) if isinstance(scenario, str) else scenario
        self.clock = ManualClock()
        self.agent = WindowsAgent(loaded, clock=self.clock, disks=invented_disks(disks))
        self.elapsed_s = 0.0

    def send(self, line: bytes) -> list[bytes]:
        """The lines that come back, word for word."""
        replies = self.agent.handle_line(line)
        self.elapsed_s = replies[-1].after_s if replies else 0.0
        self.clock.sleep(self.elapsed_s)
        return [reply.line for reply in replies]

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        asked: dict[str, Any] = {"execute": command}
        if arguments:
            asked["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        (line,) = self.send(json.dumps(asked).encode() + b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def value(self, command: str, **arguments: Any) -> Any:
        return self.ask(command, **arguments)["return"]

    def error(self, command: str, **arguments: Any) -> tuple[str, str]:
        error = self.ask(command, **arguments)["error"]
        return error["class"], error["desc"]

    def freeze_and_thaw(self, held_s: float = 0.05) -> dict[str, Any]:
        """The thaw's reply."""
        self.ask("guest-fsfreeze-freeze")
        self.clock.sleep(held_s)
        return self.ask("guest-fsfreeze-thaw")

    def run(self, path: str, *words: str) -> dict[str, Any]:
        """The status of the ended program."""
        pid = self.value("guest-exec", path=path, arg=list(words), capture_output=True)["pid"]
        while not (status := self.value("guest-exec-status", pid=pid))["exited"]:
            pass
        assert isinstance(status, dict)
        return status

    def output(self, path: str, *words: str) -> bytes:
        return base64.b64decode(self.run(path, *words).get("out-data", ""))
