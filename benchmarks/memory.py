"""Memory of a process and of all that it started, as the kernel counts it."""

import re
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_KB_PER_MB = 1024


@dataclass(frozen=True)
class Memory:
    """`rss_mb` counts pages that processes share once for each, `pss_mb` once in all."""

    processes: int
    rss_mb: float
    pss_mb: float


def of_tree(pid: int) -> Memory:
    rollups = [(_PROC / str(one) / "smaps_rollup").read_text() for one in tree(pid)]
    return Memory(len(rollups), _sum(rollups, "Rss") / _KB_PER_MB, _sum(rollups, "Pss") / _KB_PER_MB)


def tree(pid: int) -> list[int]:
    children = [int(child) for task in (_PROC / str(pid) / "task").iterdir() for child in (task / "children").read_text().split()]
    return [pid, *(descendant for child in children for descendant in tree(child))]


def _sum(rollups: list[str], name: str) -> int:
    lines = (re.search(rf"^{name}:\s+(\d+) kB", rollup, re.MULTILINE) for rollup in rollups)
    return sum(int(line.group(1)) for line in lines if line is not None)
