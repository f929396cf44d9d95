"""What a process and all that it started used: seconds of the processor, and memory at its highest."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import memory

EVERY_S = 0.05
_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """Looked at twenty times a second: a process that lived for less between two looks is not counted."""

    rss_mb: float = 0.0
    pss_mb: float = 0.0
    #: Ticks of each process that was seen, by its id.
    _ticks: dict[int, int] = field(default_factory=dict)
    _before: int = 0

    @property
    def cpu_s(self) -> float:
        return (sum(self._ticks.values()) - self._before) / _TICKS_PER_S

    def begin(self) -> None:
        self._before = sum(self._ticks.values())

    def look(self, pid: int) -> None:
        for one in memory.tree(pid):
            # Behind the name, which is in brackets: the state is the third field of the file.
            fields = (_PROC / str(one) / "stat").read_text().rpartition(")")[2].split()
            self._ticks[one] = int(fields[11]) + int(fields[12])

    def look_at_memory(self, pid: int) -> None:
        found = memory.of_tree(pid)
        self.rss_mb, self.pss_mb = max(self.rss_mb, found.rss_mb), max(self.pss_mb, found.pss_mb)


@contextmanager
def used_by(pid: int) -> Iterator[Usage]:
    usage, stopping = Usage(), threading.Event()

    def look() -> None:
        # A process may end while it is looked at.
        with suppress(OSError):
            usage.look(pid)
        with suppress(OSError):
            usage.look_at_memory(pid)

    def run() -> None:
        while not stopping.wait(EVERY_S):
            look()

    look()
    usage.begin()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        stopping.set()
        thread.join()
        look()
