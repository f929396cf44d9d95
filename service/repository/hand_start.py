"""Starts and ends the process of a hand. Ending never waits for a process that hangs in the kernel."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import service
from service import bounded_io
from service.errors import HostOutOfDescriptors, RepositoryNotAnswering, RepositoryUnusable

PROGRAM = "service.repository.hand_process"
"""The program of a hand, unless its owner names another one."""
SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's python3-libnbd is a module of this interpreter only."""
TRIAL_S = 20.0
"""Seconds for the system's Python to import that module. After that the service's own interpreter is used."""
REAP_S = 0.5
"""Seconds for a killed process to be gone. After that it is taken to hang in the kernel, and is left behind."""
TELL_S = 5.0
"""Seconds for a process whose output has ended to be gone, so that it can be said how. On a busy host its threads take a while."""
MAX_HUNG = 3
"""Processes for one repository that were killed and still hang in the kernel. At the limit no other one is started for it."""
MAX_COMPLAINT_BYTES = 4000
"""Bytes of the end of what a process wrote to its standard error. What is before them is not shown."""

_hung: list["Child"] = []
_hung_lock = threading.Lock()


class Child:
    """One process of a hand, in a session of its own: its process group is killed as one."""

    def __init__(self, path: str, key: bytes | None, program: str | None = None) -> None:
        """Raises OSError."""
        self.path = path
        self.started_at = time.monotonic()
        #: Whether it has said that it runs. Until then its silence says nothing of the repository.
        self.is_ready = False
        #: Whether a call has got its answer from it.
        self.has_answered = False
        #: Whether `kill` was called.
        self.is_killed = False
        self._complaints = os.memfd_create("complaints", os.MFD_CLOEXEC)
        key_file = _in_memory(key) if key is not None else None
        try:
            self.process = subprocess.Popen(
                [_interpreter_of(program), "-P", "-m", program or PROGRAM, *([str(key_file)] if key_file is not None else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A file in memory never fills up, as a pipe does that nobody reads.
                stderr=self._complaints,
                bufsize=0,
                pass_fds=[key_file] if key_file is not None else [],
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._complaints)
            raise
        finally:
            if key_file is not None:
                os.close(key_file)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.to_child, self.from_child = self.process.stdin.fileno(), self.process.stdout.fileno()
        for descriptor in (self.to_child, self.from_child):
            os.set_blocking(descriptor, False)

    def kill(self) -> None:
        """Send SIGKILL to the process and to all programs that it started. At once, from any thread."""
        self.is_killed = True
        # Until it is reaped, the id of the group cannot belong to others.
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and release what it used here. Returns within REAP_S."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self.process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            with _hung_lock:
                _hung.append(self)
        os.close(self._complaints)

    def is_ended(self) -> bool:
        """Whether the process has ended by itself, or was killed by others. It is not reaped, so that its group can still be killed.

        False for a moment after it was killed: until the last of its threads has ended.
        """
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def why_it_ended(self) -> str:
        """For a process whose output has ended."""
        ended = _ended_by_itself(self.process.pid)
        size = os.fstat(self._complaints).st_size
        complaint = os.pread(self._complaints, MAX_COMPLAINT_BYTES, max(0, size - MAX_COMPLAINT_BYTES)).decode(errors="replace").strip()
        return ": ".join(part for part in (ended or "its output ended", complaint.rpartition("\n")[2]) if part)


def start(path: str, key: bytes | None, step: str, program: str | None = None) -> Child:
    """Raises RepositoryUnusable, RepositoryNotAnswering (earlier processes still hang there), HostOutOfDescriptors."""
    _refuse_if_hung(path, step)
    try:
        return Child(path, key, program)
    except OSError as error:
        reason = bounded_io.reason_of(error)
        if error.errno in bounded_io.NO_DESCRIPTORS:
            raise HostOutOfDescriptors(what="starting the process for a repository", reason=reason) from error
        raise RepositoryUnusable(path=path, step=step, reason=f"the process was not started: {reason}") from error


def _refuse_if_hung(path: str, step: str) -> None:
    if len(there := hung_at(path)) >= MAX_HUNG:
        silent_s = time.monotonic() - min(child.started_at for child in there)
        raise RepositoryNotAnswering(path=path, step=step, silent_s=silent_s)


def hung_at(path: str) -> list[Child]:
    """Processes for this repository that were killed and have not ended."""
    with _hung_lock:
        _hung[:] = [child for child in _hung if child.process.poll() is None]
        return [child for child in _hung if child.path == path]


def _interpreter_of(program: str | None) -> str:
    """Another program than that of the hand needs what is installed beside the service, and no libnbd."""
    return interpreter() if program is None else sys.executable


@cache
def interpreter() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        trial = [SYSTEM_PYTHON, "-P", "-c", "import nbd"]
        if subprocess.run(trial, capture_output=True, check=False, timeout=TRIAL_S, cwd="/", env=_environment()).returncode == 0:
            return SYSTEM_PYTHON
    return sys.executable


def _environment() -> dict[str, str]:
    """Without the service's settings, which may hold passwords, and with the messages of programs in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STILLPOINT_", "PYTHON", "LC_", "LANG"))}
    root = str(Path(service.__file__).parent.parent)
    return kept | {"PYTHONPATH": root, "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}


def _in_memory(key: bytes) -> int:
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    os.write(descriptor, key)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _ended_by_itself(pid: int) -> str | None:
    """How it ended, in words; the process is not reaped. None: it runs."""
    until = time.monotonic() + TELL_S
    while not (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
        if time.monotonic() > until:
            return None
        time.sleep(0.01)
    if ended.si_code == os.CLD_EXITED:
        return f"the process ended with exit status {ended.si_status}"
    names = {int(each): each.name for each in signal.Signals}
    return f"the process was ended by signal {names.get(ended.si_status, ended.si_status)}"
