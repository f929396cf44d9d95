"""Whether processes run, and waiting until they do not."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 30.0


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a fact."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pids_in(file: Path) -> list[int]:
    until(file.exists, "the step did not begin")
    return [int(pid) for pid in file.read_text().split()]


def until_none_runs(pids: list[int]) -> None:
    until(lambda: not any(runs(pid) for pid in pids), f"one of {pids} still runs")
