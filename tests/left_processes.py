"""Pytest plugin: processes of a run of tests that was killed are ended by the next run.

Services and keepers have sessions of their own, and nobody tells them that the run is gone. A thaw guard goes on until its thaw is
answered: where the way to libvirt belonged to the run, that is never. Every process that a test starts inherits the mark of its run.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

MARK = "TESTS_OF_STILLPOINT"


def pytest_configure() -> None:
    end_those_of_killed_runs()
    os.environ[MARK] = mark_of(os.getpid())


def mark_of(pid: int) -> str:
    """The id of a process, in which namespace, and when it was started: another process may get the id later."""
    return f"{pid} {_started(pid)} {namespace()}"


def namespace() -> str:
    """Of this process. In a namespace of its own a run has ids that are those of other processes elsewhere."""
    return str(Path("/proc/self/ns/pid").readlink())


def without_mark() -> dict[str, str]:
    """The environment of a process that outlives this run on purpose."""
    return {name: value for name, value in os.environ.items() if name != MARK}


def end_those_of_killed_runs() -> set[int]:
    """The ids of the processes that got a SIGKILL."""
    ended = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (mark := _inherited(process)) and _is_of_a_killed_run(mark):
                os.kill(int(process.name), signal.SIGKILL)
                ended.add(int(process.name))
    return ended


def _inherited(process: Path) -> str | None:
    """The mark in the environment with which a process began. Raises OSError."""
    for variable in (process / "environ").read_bytes().split(b"\0"):
        name, _, value = variable.partition(b"=")
        if name == MARK.encode():
            return value.decode(errors="replace")
    return None


def _is_of_a_killed_run(mark: str) -> bool:
    """A run in another namespace cannot be looked up here: it counts as alive."""
    pid, _, rest = mark.partition(" ")
    if not (pid.isdigit() and rest.endswith(f" {namespace()}")):
        return False
    try:
        return mark_of(int(pid)) != mark
    except OSError:
        return True


def _started(pid: int) -> str:
    """In ticks since the boot of the machine. Raises OSError."""
    # The name of the program, in brackets, may have spaces.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
