"""The worker's side of the thaw guard: one keeper process, and a guard process for each freeze window (see `guard_process`)."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import service
from service import bounded_io
from service.errors import GuardNotReady, HostOutOfDescriptors, StillpointError
from service.freeze import guard_report
from service.model.window import GuardReport

READY_S = 20.0
"""Seconds that a new guard may need to connect to libvirt. Then the job fails with guard_not_ready. Nothing is frozen before."""
DISMISS_S = 2.0
"""Seconds that a dismissed guard may need to answer. Then it is killed."""
OTHERS_S = 5.0
"""Seconds that the guard of an earlier job may need to end by itself. Then it is killed."""
MESSAGE_BYTES = 65536
"""The largest message on the socket. The rest of a longer message is lost."""
MAX_GUARDS_STARTED = 1000
"""Jobs whose guard is remembered. At the limit the oldest is forgotten: a job that failed early never discards its report."""


class Unguarded:
    """No guard: for a fake guest, and for a benchmark that measures the cost of the guard."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def wait_until_ready(self) -> None:
        pass

    def fileno(self) -> int | None:
        return None

    def is_gone(self) -> bool:
        return False

    def freezing(self, over_by_ns: int, hold_ns: int) -> None:
        pass

    def frozen(self, count: int, thaw_by_ns: int) -> None:
        pass

    def dismiss(self) -> GuardReport | None:
        return None


class Guard:
    """One guard process. Leaving the context without `dismiss()` looks like our death to the guard: if a freeze was announced, it thaws."""

    def __init__(self, ask: Callable[[], socket.socket], domain: str) -> None:
        """`ask` gives the socket of a new guard. Raises OSError."""
        self._ask = ask
        self._end = ask()
        self._domain = domain
        self._pidfd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def wait_until_ready(self) -> None:
        """Raises GuardNotReady."""
        answer = self._receive(READY_S)
        if answer is None and self.is_gone():
            # The keeper died while it handled the request.
            self._end.close()
            try:
                self._end = self._ask()
            except OSError as error:
                raise _unstarted(self._domain, error) from error
            answer = self._receive(READY_S)
        if answer is None or "ready" not in answer:
            reason = str(answer.get("failed", "its answer cannot be understood")) if answer else "the guard did not answer"
            raise GuardNotReady(domain=self._domain, reason=reason)
        # A descriptor, because the process id may belong to another process later.
        with suppress(OSError):
            self._pidfd = os.pidfd_open(answer["ready"])

    def fileno(self) -> int | None:
        return self._end.fileno()

    def is_gone(self) -> bool:
        try:
            return not self._end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def freezing(self, over_by_ns: int, hold_ns: int) -> None:
        self._send({"freezing": over_by_ns, "hold": hold_ns})

    def frozen(self, count: int, thaw_by_ns: int) -> None:
        self._send({"frozen": count, "until": thaw_by_ns})

    def dismiss(self) -> GuardReport | None:
        self._send({"dismiss": True})
        answer = self._receive(DISMISS_S)
        if answer is not None:
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                report = answer.get("report")
                return guard_report.from_document(report) if report is not None else None
        # The guard is stopped, hangs in a call, or is broken. If it woke up later, it would thaw a later window of this guest.
        self._kill()
        return None

    def _kill(self) -> None:
        if self._pidfd is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _send(self, message: dict[str, Any]) -> None:
        # The watchdog of the window notices a guard that is gone.
        with suppress(OSError):
            self._end.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        # Not select(), which cannot handle a descriptor above 1023.
        readable = select.poll()
        readable.register(self._end, select.POLLIN)
        if not readable.poll(seconds * 1000):
            return None
        try:
            message = json.loads(self._end.recv(MESSAGE_BYTES))
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None


def _unstarted(domain: str, error: OSError) -> StillpointError:
    if error.errno in bounded_io.NO_DESCRIPTORS:
        return HostOutOfDescriptors(what=f"starting the thaw guard of {domain}", reason=bounded_io.reason_of(error))
    return GuardNotReady(domain=domain, reason=str(error))


class GuardSource(Protocol):
    def start_guard(self, job_id: str, domain_id: str, domain_name: str) -> Guard | Unguarded:
        """A context. Call its `wait_until_ready` before the freeze. Raises GuardNotReady."""
        ...

    def discard_report(self, job_id: str) -> None:
        """The job has recorded what its guard did, so the report is not needed any more."""
        ...


class NoGuards:
    """See Unguarded."""

    def start_guard(self, job_id: str, domain_id: str, domain_name: str) -> Unguarded:  # noqa: ARG002 - as GuardSource has them
        return Unguarded()

    def discard_report(self, job_id: str) -> None:
        pass


class GuardKeeper:
    """Starts the keeper process when a guard is first needed, and again when the keeper is gone. For all threads of a worker."""

    def __init__(self, state_dir: Path, uri: str) -> None:
        self._state_dir = state_dir
        self._uri = uri
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        #: By job: the domain of each guard that was started here and whose report is still needed.
        self._domains: dict[str, str] = {}

    def start(self) -> None:
        """Start the keeper now, so that the first job need not wait. Raises OSError."""
        with self._lock:
            self._living()

    def start_guard(self, job_id: str, domain_id: str, domain_name: str) -> Guard:
        earlier = self._end_others(domain_id)
        if earlier is not None:
            reason = f"the guard of an earlier job ({earlier}) does not end, and could thaw the guest in this window"
            raise GuardNotReady(domain=domain_name, reason=reason)
        self._domains[job_id] = domain_id
        if len(self._domains) > MAX_GUARDS_STARTED:
            self._domains.pop(next(iter(self._domains)), None)
        report = guard_report.path_of(self._state_dir, job_id)
        task = json.dumps({"job_id": job_id, "domain": domain_id, "uri": self._uri, "report": str(report)}).encode()
        try:
            return Guard(lambda: self._fork(task), domain_name)
        except OSError as error:
            raise _unstarted(domain_name, error) from error

    def discard_report(self, job_id: str) -> None:
        guard_report.remove(self._state_dir, job_id)
        self._domains.pop(job_id, None)

    def close(self) -> None:
        """End the keeper. Guards that watch a window continue."""
        with self._lock:
            if self._control is not None:
                self._control.close()
                self._control = None
            if self._process is not None:
                # A keeper that hangs ends later by itself, because its socket is closed.
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(DISMISS_S)

    def _fork(self, task: bytes) -> socket.socket:
        own_end, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other_end, self._lock:
            try:
                self._send(task, other_end)
            except OSError:
                own_end.close()
                raise
        return own_end

    def _send(self, task: bytes, other_end: socket.socket) -> None:
        try:
            socket.send_fds(self._living(), [task], [other_end.fileno()])
        except OSError:
            # The keeper died since the last window.
            self._drop()
            socket.send_fds(self._living(), [task], [other_end.fileno()])

    def _living(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._drop()
        guard_report.folder(self._state_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        own_end, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(service.__file__).parent.parent)
        with other_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service.freeze.guard_process", str(other_end.fileno())],
                pass_fds=[other_end.fileno()],
                env={**os.environ, "PYTHONPATH": root},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A session of its own, so that signals to the worker's terminal or process group do not reach the keeper.
                start_new_session=True,
            )
        self._control = own_end
        return own_end

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            # The keeper is dead or useless without its socket.
            self._process.kill()
            # A keeper that hangs in the kernel dies later. A new keeper starts now.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(DISMISS_S)
            self._process = None

    def _end_others(self, domain_id: str) -> str | None:
        """End the guards of earlier jobs that still watch this guest: such a guard would thaw the new window.

        Returns the job whose guard does not end. None: all ended. A report without a domain may belong to this guest, unless the job is
        known to be of another guest.
        """
        elsewhere = {job_id for job_id, domain in self._domains.copy().items() if domain != domain_id}
        earlier = guard_report.of_domain(self._state_dir, domain_id, elsewhere)
        return next((report.job_id for report in earlier if not guard_report.end(self._state_dir, report.job_id, OTHERS_S)), None)
