"""A real Stillpoint in processes of its own, for tests that go through HTTP or kill something."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

FINAL = ("succeeded", "failed", "cancelled")


_HTTP = httpx2.Client(timeout=30, limits=httpx2.Limits(max_keepalive_connections=0))
"""One for all: making a client takes longer than most answers. No connection is kept, as the service behind it may be killed."""


class ServiceProcess:
    """`stillpoint all` (or serve, or worker) with a state folder of its own. As a context it is started and, at the end, stopped.

    Started means: an API is ready to answer; a worker runs.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        libvirt_uri: str,
        host_id: str = "hv1",
        command: str = "all",
        inside: Sequence[str] = (),
        path: str | None = None,
        program: str = "service.cli",
        **settings: str,
    ) -> None:
        """`inside`: a command that runs the one that is appended to it, as `unshare` does. `path`: where it looks for programs.

        `program`: a module that does what the command line does, and something else.
        """
        self.state_dir = state_dir
        self.inside = list(inside)
        self._command = command
        self._program = program
        self.port = _free_port()
        self._log = state_dir / "service.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STILLPOINT_")},
            "STILLPOINT_STATE_DIR": str(state_dir),
            # The settings of a Stillpoint that is installed on this machine are not for its tests.
            "STILLPOINT_SETTINGS_FILE": "/dev/null",
            "STILLPOINT_LIBVIRT_URI": libvirt_uri,
            "STILLPOINT_HOST_ID": host_id,
            "STILLPOINT_PORT": str(self.port),
            "STILLPOINT_LOG_FORMAT": "json",
            **{f"STILLPOINT_{name.upper()}": value for name, value in settings.items()},
            **({"PATH": path} if path is not None else {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ServiceProcess":
        self.state_dir.mkdir(parents=True, exist_ok=True)
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> "ServiceProcess":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, sys.executable, "-m", self._program, self._command],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while self._command != "worker" and not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the service did not start:\n{self.log_text()}")
            time.sleep(0.05)
        return self

    def stop(self) -> int | None:
        """SIGTERM, and its exit status."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill_if_alive(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(60)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def log_text(self, since: int = 0) -> str:
        """`since`: a size that the log had before."""
        return self._log.read_bytes()[since:].decode(errors="replace") if self._log.exists() else ""

    def log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    # --- HTTP -----------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        return (self.seen_by_it(self.state_dir) / "admin.token").read_text().strip()

    def seen_by_it(self, path: Path) -> Path:
        """The same path in the mounts of the process, which may not be ours."""
        return Path(f"/proc/{self.pid}/root{path}") if self.inside else path

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return _HTTP.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, **options)

    def create(self, domain: str, kind: str = "snapshot", **body: Any) -> str:
        """The id of a new job. The domain may have been defined a moment ago: it is waited for."""
        deadline = time.monotonic() + 60
        while True:
            answer = self.request("POST", "/api/v1/jobs", json={"kind": kind, "domain": domain, **body})
            if answer.status_code == 202:
                return str(answer.json()["id"])
            if answer.status_code != 404 or time.monotonic() > deadline:
                raise AssertionError(f"{answer.status_code}: {answer.text}")
            time.sleep(0.1)

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.request("GET", f"/api/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    @contextmanager
    def polled(self, job_id: str) -> Iterator[Callable[[], dict[str, Any]]]:
        """Reads the job again and again, over one connection: as fast as can be."""
        with httpx2.Client(headers={"Authorization": f"Bearer {self.token}"}, timeout=30) as client:
            yield lambda: dict(client.get(f"http://127.0.0.1:{self.port}/api/v1/jobs/{job_id}").raise_for_status().json())

    def wait(self, job_id: str, timeout: float = 60) -> dict[str, Any]:
        """The job when it has ended."""
        deadline = time.monotonic() + timeout
        while (document := self.job(job_id))["state"] not in FINAL:
            assert time.monotonic() < deadline, f"the job did not end: {document}\n{self.log_text()[-3000:]}"
            time.sleep(0.02)
        return document

    def run(self, domain: str, kind: str = "snapshot", **body: Any) -> dict[str, Any]:
        return self.wait(self.create(domain, kind, **body))

    def _is_ready(self) -> bool:
        try:
            return _HTTP.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
