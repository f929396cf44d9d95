"""Runs a program in a guest through its agent, and waits for its end."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from service.errors import AgentNotAnswering
from service.hypervisor import agent
from service.hypervisor.exec_result import ExecResult, result_of

POLL_S = 0.02
"""Seconds before the first question whether a program in the guest has ended. Each pause is longer than the last one by POLL_GROWTH."""
POLL_GROWTH = 1.5
"""The answer comes late by a third of what the program takes, at most. The freeze waits for some of these programs."""
POLL_MAX_S = 0.5
"""Seconds at which that pause stops to grow."""


class Asked(Protocol):
    """A guest whose agent takes commands."""

    name: str

    def agent(self, command: str, arguments: dict[str, Any] | None = None) -> Any: ...


def run(guest: Asked, path: str, arguments: Sequence[str], budget_ms: int) -> ExecResult:
    """Raises AgentNotAnswering if the program does not end within the budget, and the errors of an agent command."""
    started = guest.agent("guest-exec", {"path": path, "arg": list(arguments), "capture-output": True})
    with agent.reading(guest.name, "guest-exec"):
        pid = started["pid"]
    deadline = time.monotonic() + budget_ms / 1000
    pause = POLL_S
    while True:
        status = guest.agent("guest-exec-status", {"pid": pid})
        with agent.reading(guest.name, "guest-exec-status"):
            if status["exited"]:
                return result_of(status)
        if time.monotonic() > deadline:
            raise AgentNotAnswering(domain=guest.name, command=f"guest-exec {path}", timeout_ms=budget_ms, message="the program still runs")
        time.sleep(pause)
        pause = min(pause * POLL_GROWTH, POLL_MAX_S)
