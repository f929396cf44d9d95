"""What the guest said on its serial console: the truth about how long its writes and its fdatasyncs were held."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.lab.places import LabError

_STALL = re.compile(r"^STALL at=([\d.]+) ms=([\d.]+) mount=(\S+) call=(write|fdatasync)$", re.MULTILINE)
_BEAT = re.compile(r"^METER mount=(\S+) at=([\d.]+) writes=(\d+) seq=(\d+) ack=(\d+) max_ms=([\d.]+) max_sync_ms=([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Stall:
    """A write or an fdatasync that took longer than the meter's threshold; `at_ms` is when it was sent, since boot."""

    at_ms: float
    ms: float
    mount: str
    call: Literal["write", "fdatasync"] = "write"


@dataclass(frozen=True)
class Heartbeat:
    """One second of a meter. `sequence` was written last; everything up to `acknowledged` was made durable."""

    mount: str
    at_ms: float
    writes: int
    sequence: int
    acknowledged: int
    max_ms: float
    max_sync_ms: float


class Console:
    """Reads the file that the serial port is written to. A mark is a place in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def text(self, since: int = 0) -> str:
        if not self.path.exists():
            return ""
        with self.path.open("rb") as serial:
            serial.seek(since)
            return serial.read().decode(errors="replace").replace("\r\n", "\n")

    def stalls(self, since: int = 0) -> list[Stall]:
        return [Stall(float(at), float(ms), mount, call) for at, ms, mount, call in _STALL.findall(self.text(since))]

    def heartbeats(self, since: int = 0) -> list[Heartbeat]:
        return [
            Heartbeat(mount, float(at), int(writes), int(sequence), int(acknowledged), float(longest), float(longest_sync))
            for mount, at, writes, sequence, acknowledged, longest, longest_sync in _BEAT.findall(self.text(since))
        ]

    def wait(self, pattern: str, timeout: float, *, since: int = 0) -> re.Match[str]:
        """The first match after the mark."""
        found: list[re.Match[str]] = []

        def seen() -> bool:
            found.extend(re.finditer(pattern, self.text(since), re.MULTILINE))
            return bool(found)

        self._until(seen, timeout, f"no {pattern!r}")
        return found[0]

    def wait_heartbeat(self, timeout: float, *, since: int | None = None) -> None:
        """Until every meter that ever spoke has spoken again: all stalls that ended before are on the console by then."""
        mark = self.mark() if since is None else since
        mounts = {beat.mount for beat in self.heartbeats()}
        self._until(lambda: mounts <= {beat.mount for beat in self.heartbeats(mark)}, timeout, "no heartbeat of every stall meter")

    def _until(self, happened: Callable[[], bool], timeout: float, otherwise: str) -> None:
        deadline = time.monotonic() + timeout
        while not happened():
            if time.monotonic() > deadline:
                raise LabError(f"{otherwise} on the console within {timeout:.0f} s; it ended with:\n{self.text()[-1500:]}")
            time.sleep(0.02)
