"""Runs a program in a guest through its agent. The program runs while the caller does something else, until the caller wants the result."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from service.errors import AgentNotAnswering
from service.hypervisor import agent
from service.hypervisor.exec_result import ExecResult, result_of

POLL_S = 0.005
"""Seconds between two questions whether a program in the guest has ended, at least."""
POLL_SHARE = 0.2
"""The share of the time that was waited so far that a pause lasts: the answer comes late by a fifth of the wait at most."""
POLL_MAX_S = 0.5
"""Seconds at which that pause stops to grow."""


class Asked(Protocol):
    """A guest whose agent takes commands."""

    name: str

    def agent(self, command: str, arguments: dict[str, Any] | None = None) -> Any: ...


class Running:
    """A program that was begun. Read its `result` once: the agent keeps the output until then, and forgets it afterwards (F§3)."""

    def __init__(self, guest: Asked, path: str, pid: Any, begun: float) -> None:
        self.begun = begun
        self._guest = guest
        self._path = path
        self._pid = pid

    def result(self, budget_ms: int) -> ExecResult:
        """Wait for the end. `budget_ms` counts from the beginning of the program.

        Raises AgentNotAnswering if the program does not end within the budget, and the errors of an agent command.
        """
        since = time.monotonic()
        while True:
            status = self._guest.agent("guest-exec-status", {"pid": self._pid})
            with agent.reading(self._guest.name, "guest-exec-status"):
                if status["exited"]:
                    return result_of(status)
            if time.monotonic() > self.begun + budget_ms / 1000:
                what = f"guest-exec {self._path}"
                raise AgentNotAnswering(domain=self._guest.name, command=what, timeout_ms=budget_ms, message="the program still runs")
            time.sleep(min(max(POLL_S, (time.monotonic() - since) * POLL_SHARE), POLL_MAX_S))


def begin(guest: Asked, path: str, arguments: Sequence[str]) -> Running:
    """Returns while the program runs. Raises the errors of an agent command."""
    begun = time.monotonic()
    started = guest.agent("guest-exec", {"path": path, "arg": list(arguments), "capture-output": True})
    with agent.reading(guest.name, "guest-exec"):
        return Running(guest, path, started["pid"], begun)
