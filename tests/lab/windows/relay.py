"""The simulated agent behind a real guest: it speaks on the socket of the guest's relay port, in real time."""

import select
import socket
import threading
import time
from collections import deque
from pathlib import Path

from tests.lab.places import LabError
from tests.lab.windows.agent import WindowsAgent

_CHUNK = 65536


class RelayAgent:
    """Connects once and never again, as a virtio port is opened once. `start()` answers in a thread, `serve()` in this one."""

    def __init__(self, agent: WindowsAgent, relay_socket: Path, *, connect_timeout_s: float = 10.0) -> None:
        self._agent = agent
        self._socket = _connect(relay_socket, connect_timeout_s)
        self._wake, self._woken = socket.socketpair()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._due: deque[tuple[float, bytes]] = deque()
        self._rest = b""

    def start(self) -> "RelayAgent":
        self._thread = threading.Thread(target=self.serve, name="windows-agent", daemon=True)
        self._thread.start()
        return self

    def serve(self) -> None:
        """Until the other end closes or `stop()`."""
        while self._is_going_on():
            with self._lock:
                self._send_what_is_due()

    def play(self, agent: WindowsAgent) -> None:
        """From now on another agent answers, as after an installation. What the old one still had to say is lost."""
        with self._lock:
            self._agent = agent
            self._due.clear()
        self._wake.send(b"\0")

    def stop(self) -> None:
        self._wake.close()
        if self._thread is not None:
            self._thread.join(5)
        for end in (self._socket, self._woken):
            end.close()

    def _is_going_on(self) -> bool:
        readable, _, _ = select.select([self._socket, self._woken], [], [], self._patience())
        if self._woken in readable and not self._woken.recv(_CHUNK):
            return False
        if self._socket not in readable:
            return True
        received = self._received()
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            with self._lock:
                now = time.monotonic()
                self._due.extend((now + reply.after_s, reply.line) for reply in self._agent.handle_line(line))
        return bool(received)

    def _received(self) -> bytes:
        try:
            return self._socket.recv(_CHUNK)
        except ConnectionError:  # QEMU is gone
            return b""

    def _patience(self) -> float | None:
        with self._lock:
            return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _send_what_is_due(self) -> None:
        # Replies come in the order of the commands: the agent does one at a time.
        while self._due and self._due[0][0] <= time.monotonic():
            try:
                self._socket.sendall(self._due.popleft()[1])
            except ConnectionError:  # the next read finds the end
                self._due.clear()


def _connect(path: Path, timeout_s: float) -> socket.socket:
    deadline = time.monotonic() + timeout_s
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as reason:
            connection.close()
            if time.monotonic() > deadline:
                raise LabError(f"nobody listens on {path}; is the guest started with agent=relay?") from reason
            time.sleep(0.05)
        else:
            return connection
