"""Sits between libvirt and the real agent of a real guest, and lies about one answer.

QEMU listens on a socket for libvirt. That socket is moved aside and one of ours lies in its place; libvirt connects anew whenever
the agent in the guest opens its port, so the agent is killed once to come to us and once to go back.
"""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree

import libvirt

from tests.lab.domain_xml import AGENT_CHANNEL
from tests.lab.guests import LabGuest
from tests.lab.places import LabError

RESTART_S = 4.0
RESTARTS = 4
RESTART = "kill -9 $(pidof qemu-ga)"
HONEST = "/run/honest"
"""There from the moment in which the agent need not be restarted any more."""
GARBAGE = b'\xfe{"return": [[[ not JSON \xc3\x28\n'


class Lie(StrEnum):
    LATE = "late"
    NEVER = "never"
    GARBAGE = "garbage"
    TWICE = "twice"
    HALF = "half_a_line"


class LyingAgent:
    """`tell` arms one lie. `obstacle_s`: for how long it kept every client of libvirt from thawing a guest that was frozen."""

    def __init__(self, guest: LabGuest, on_lie: Callable[[str], None]) -> None:
        self.obstacle_s = 0.0
        self._guest = guest
        self._on_lie = on_lie
        self._path = self._real = Path()
        self._lie: tuple[Lie, str, float] | None = None
        self._connections = self.opened = 0
        self._is_frozen = False
        self._blocked_since: float | None = None
        self._blocked_most_s = 0.0
        self._listener: socket.socket | None = None

    def start(self) -> "LyingAgent":
        """Everything that libvirt and the agent say to each other goes through here when this returns."""
        self._path = _agent_socket(self._guest)
        self._real = self._path.with_name(f"{self._path.name}.real")
        self._path.rename(self._real)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._path.chmod(0o777)
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        self._restart_agent(lambda: self._connections > 0)
        return self

    def stop(self) -> None:
        """libvirt and the agent speak without us again."""
        self._lie = None
        self._guest.wait_agent()
        self.needs_no_restart()
        self._path.unlink()
        self._real.rename(self._path)
        self._restart_agent(lambda: self._connections == 0)
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def tell(self, lie: Lie, command: str, seconds: float) -> None:
        """About the next answer to `command`; `seconds`: how late, or for how long libvirt waits for an answer that never comes."""
        self.obstacle_s, self._blocked_since = 0.0, None
        self._lie = (lie, command, seconds)

    def restart_later(self, seconds: float) -> None:
        """As systemd restarts an agent that does nothing useful. Asked for now, as a frozen guest takes no programs.

        Until `needs_no_restart` reaches the agent it is done again, as a lie that is told after the restart is healed by the next one only.
        """
        self._in_guest(f"rm -f {HONEST}; until [ -e {HONEST} ]; do sleep {seconds:.2f}; [ -e {HONEST} ] || {RESTART}; done")

    def needs_no_restart(self) -> None:
        self._in_guest(f"touch {HONEST}")

    def _restart_agent(self, happened: Callable[[], bool]) -> None:
        for _ in range(RESTARTS):
            # A restart that another one followed within a moment is one to libvirt, which then keeps its connection.
            self._guest.wait_agent()
            self._in_guest(f"sleep 0.1; {RESTART}")
            deadline = time.monotonic() + RESTART_S
            while time.monotonic() < deadline:
                if happened():
                    self._guest.wait_agent()
                    return
                time.sleep(0.02)
        raise LabError("libvirt did not connect to the agent anew")

    def _in_guest(self, script: str) -> None:
        self._guest.agent({"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", script]}})

    # --- between the two ------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                agent = socket.socket(socket.AF_UNIX)
                agent.connect(str(self._real))
                self._connections += 1
                self.opened += 1
                self._unblock()
                asked: deque[str] = deque()
                threading.Thread(target=self._pass_commands, args=(client, agent, asked), daemon=True).start()
                threading.Thread(target=self._pass_answers, args=(agent, client, asked), daemon=True).start()

    def _pass_commands(self, client: socket.socket, agent: socket.socket, asked: "deque[str]") -> None:
        with suppress(OSError), client.makefile("rb") as lines:
            for line in lines:
                asked.append(json.loads(line.strip(b"\xff"))["execute"])
                agent.sendall(line)
        self._connections -= 1
        _shut(client, agent)

    def _pass_answers(self, agent: socket.socket, client: socket.socket, asked: "deque[str]") -> None:
        with suppress(OSError), agent.makefile("rb") as lines:
            for line in lines:
                command = asked.popleft() if asked else ""
                self._see(command, line)
                if self._lie is not None and self._lie[1] == command:
                    self._tell(client, line)
                else:
                    client.sendall(line)
        _shut(client, agent)

    def _see(self, command: str, line: bytes) -> None:
        """What the guest really is, whatever libvirt is told."""
        if command == "guest-fsfreeze-freeze" and b'"return"' in line:
            self._is_frozen = True
        if command == "guest-fsfreeze-thaw":
            self._unblock()
            self._is_frozen = False

    def _tell(self, client: socket.socket, line: bytes) -> None:
        assert self._lie is not None
        (lie, command, seconds), self._lie = self._lie, None
        self._on_lie(f"{command} of a guest that is {'frozen' if self._is_frozen else 'thawed'}: {lie} ({seconds:.2f} s) for {line!r}")
        if lie is Lie.TWICE:
            client.sendall(line + line)
            return
        self._blocked_since = time.monotonic() if self._is_frozen else None
        # An answer that does not come libvirt gives up by itself.
        self._blocked_most_s = seconds
        match lie:
            case Lie.LATE:
                time.sleep(seconds)
                client.sendall(line)
                self._unblock()
            case Lie.GARBAGE:
                client.sendall(GARBAGE)
            case Lie.HALF:
                client.sendall(line[: len(line) // 2])

    def _unblock(self) -> None:
        since, self._blocked_since = self._blocked_since, None
        if since is not None:
            self.obstacle_s += min(time.monotonic() - since, self._blocked_most_s)


def _agent_socket(guest: LabGuest) -> Path:
    live = ElementTree.fromstring(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    for channel in live.iterfind("devices/channel"):
        target, source = channel.find("target"), channel.find("source")
        if target is not None and source is not None and target.get("name") == AGENT_CHANNEL:
            return Path(source.get("path", ""))
    raise LabError(f"{guest.name} has no agent channel")


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
