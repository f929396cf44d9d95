"""The simulated agent without QEMU: what libvirt would have answered, error by error."""

import json
import threading
from collections.abc import Mapping

from tests.fakes.libvirt_errors import agent_busy, agent_error, agent_out_of_sync, agent_silent
from tests.lab.windows.agent import WindowsAgent

BLOCK = -2
DEFAULT = -1
DEFAULT_TIMEOUT_S = 5.0
SYNC_TIMEOUT_S = 5.0
JOB_WAIT_S = 30.0


class AgentChannel:
    """The agent as libvirt offers it: one caller at a time, a sync before the first command and after every lost answer."""

    def __init__(self, agent: WindowsAgent) -> None:
        self.agent = agent
        self._job = threading.Lock()
        self._in_sync = False
        self._syncs = 0

    def ask(self, command: str, timeout_s: float) -> str | None:
        """The agent's line. None: it did not come in time; the guest carries the command out all the same. `timeout_s` may be BLOCK."""
        line = self._last_line(command.encode() + b"\n", timeout_s)
        return None if line is None else line.decode()

    def agent_command(self, command: str, timeout_s: int) -> str:
        """As virDomainQemuAgentCommand: the whole reply, or libvirtError with libvirt's own codes and texts."""
        if not self._acquire():
            raise agent_busy()
        try:
            limit_s = DEFAULT_TIMEOUT_S if timeout_s == DEFAULT else float(timeout_s)
            self._synchronise()
            reply = self.ask(command, limit_s)
            self._in_sync = reply is not None
        finally:
            self._job.release()
        if reply is None:
            raise agent_silent()
        error = json.loads(reply).get("error")
        if error is not None:
            raise agent_error(_name(command), error["desc"])
        return reply

    def _acquire(self) -> bool:
        deadline = self.agent.clock.now() + JOB_WAIT_S
        while not self._job.acquire(timeout=0.001):
            if self.agent.clock.now() > deadline:
                return False
        return True

    def _synchronise(self) -> None:
        for _ in range(2):
            if self._in_sync:
                return
            self._syncs += 1
            sync = {"execute": "guest-sync", "arguments": {"id": self._syncs}}
            self._in_sync = self.ask(json.dumps(sync), SYNC_TIMEOUT_S) is not None
        if not self._in_sync:
            raise agent_out_of_sync()

    def _last_line(self, line: bytes, timeout_s: float) -> bytes | None:
        replies = self.agent.handle_line(line)
        if not replies:
            self.agent.clock.sleep(0.0 if timeout_s == BLOCK else timeout_s)
            return None
        if timeout_s != BLOCK and replies[-1].after_s > timeout_s:
            self.agent.clock.sleep(timeout_s)
            return None
        self.agent.clock.sleep(replies[-1].after_s)
        return replies[-1].line


def _name(command: str) -> str:
    asked = json.loads(command)
    return str(asked["execute"]) if isinstance(asked, Mapping) else "?"
