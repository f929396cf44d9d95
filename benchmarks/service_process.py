"""A Stillpoint of the benchmark's own: a process on a free port with its own state folder."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.lab.places import LabError

FOREIGN_FREEZE_S = 20.0
KEPT_S = 20.0

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
PROGRAM = Path(sys.executable).with_name("stillpoint")


class ServiceProcess:
    """`command` is `all` or `serve`. As a context manager: started and ready, then stopped."""

    def __init__(self, command: str, state_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self._command = command
        self._state_dir = state_dir
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STILLPOINT_")},
            # Nor the settings of a Stillpoint that is installed on this machine.
            "STILLPOINT_SETTINGS_FILE": "/dev/null",
            "STILLPOINT_STATE_DIR": str(state_dir),
            "STILLPOINT_PORT": str(self.port),
            "STILLPOINT_HOST_ID": "bench",
            "STILLPOINT_LOG_LEVEL": "warning",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def migrate(self) -> None:
        """Before `serve`; `all` does it by itself."""
        done = subprocess.run([PROGRAM, "migrate"], env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"stillpoint migrate ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")

    def __enter__(self) -> Self:
        self._state_dir.mkdir(parents=True, exist_ok=True)
        self._log = (self._state_dir / "service.log").open("wb")
        self._process = subprocess.Popen([PROGRAM, self._command], env=self._environment, stdout=self._log, stderr=self._log)
        wait_http(self.port, "/readyz", self._why_not_ready)
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        stop(self._process)
        if self._log is not None:
            self._log.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        return (self._state_dir / "admin.token").read_text().strip()

    def client(self) -> "Client":
        return Client(self.port, self.token)

    def _why_not_ready(self) -> str | None:
        """None: it may yet become ready."""
        if self._process is None or self._process.poll() is None:
            return None
        return f"stillpoint {self._command} ended with {self._process.returncode}: {self.log_text()[-2000:]}"

    def log_text(self) -> str:
        return (self._state_dir / "service.log").read_text(errors="replace")


class Client:
    """JSON over one kept connection."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._used_at = time.monotonic()
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def get(self, path: str) -> Any:
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        return self._call("GET", path, None, (200,))

    def post(self, path: str, document: dict[str, Any], expected: Sequence[int] = (202,)) -> Any:
        """A guest that another contestant had frozen a moment ago is refused until the worker has looked again: that is waited for."""
        deadline = time.monotonic() + FOREIGN_FREEZE_S
        while True:
            try:
                return json.loads(self.post_bytes(path, document, expected))
            except LabError as error:
                if "guest_already_frozen" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def post_bytes(self, path: str, document: dict[str, Any], expected: Sequence[int] = (202,)) -> bytes:
        return self._call("POST", path, json.dumps(document), expected)

    def wait_job(self, job: dict[str, Any], timeout_s: float = 120.0, poll_s: float = 0.1) -> dict[str, Any]:
        """The job in its final state."""
        deadline = time.monotonic() + timeout_s
        while True:
            found: dict[str, Any] = self.get(f"/api/v1/jobs/{job['id']}")
            if found["state"] in ("succeeded", "failed", "cancelled"):
                return found
            if time.monotonic() > deadline:
                raise LabError(f"the job did not end within {timeout_s:.0f} s: {json.dumps(found)}")
            time.sleep(poll_s)

    def wait_known(self, name: str, timeout_s: float = 60.0) -> None:
        """Until the worker has published it, running or not, agent or not."""
        deadline = time.monotonic() + timeout_s
        while not self.get(f"/api/v1/domains?name={name}")["items"]:
            if time.monotonic() > deadline:
                raise LabError(f"the service did not publish {name} within {timeout_s:.0f} s")
            time.sleep(0.1)

    def wait_domain(self, name: str, timeout_s: float = 60.0) -> None:
        """Until the worker has published it as running, with its agent."""
        deadline = time.monotonic() + timeout_s
        while True:
            items = self.get(f"/api/v1/domains?name={name}")["items"]
            if items and items[0]["state"] == "running" and (items[0]["agent"] or {}).get("connected"):
                return
            if time.monotonic() > deadline:
                raise LabError(f"the service did not publish {name} within {timeout_s:.0f} s: {items}")
            time.sleep(0.1)

    def _call(self, method: str, path: str, body: str | None, expected: Sequence[int]) -> bytes:
        if time.monotonic() - self._used_at > KEPT_S:
            # The service closes a connection on which nothing is said; it is opened again by the next request.
            self._connection.close()
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        self._used_at = time.monotonic()
        if response.status not in expected:
            raise LabError(f"{method} {path} was answered with {response.status}: {content[:2000].decode(errors='replace')}")
        return content


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_http(port: int, path: str, why_not: Callable[[], str | None], timeout_s: float = START_TIMEOUT_S) -> None:
    """Until the path is answered with 200."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (reason := why_not()) is not None:
            raise LabError(reason)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.05)
    raise LabError(f"{path} was not answered with 200 within {timeout_s:.0f} s")


def stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
