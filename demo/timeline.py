"""A job's phases as a timeline that a person can read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

NAME_WIDTH = 14
NUMBERS_WIDTH = 26
HELD = "writes held"


@dataclass(frozen=True)
class Glyphs:
    """`bar` for a phase, `held` for the time in which the guest could not write, `speck` for what is too short for a bar."""

    bar: str
    held: str
    speck: str


BLOCKS = Glyphs(bar="█", held="▒", speck="▏")
ASCII = Glyphs(bar="#", held="=", speck="|")


@dataclass(frozen=True)
class Row:
    """Milliseconds, `start_ms` from the job's creation."""

    name: str
    start_ms: float
    duration_ms: float
    outcome: str = "ok"

    @property
    def is_hold(self) -> bool:
        return self.name == HELD


def rows(job: Mapping[str, Any]) -> list[Row]:
    """The time in the queue, every phase, and below the thaw the hold: from the freeze's answer until the thaw was sent."""
    created = datetime.fromisoformat(job["created_at"])
    found: list[Row] = []
    for phase in job["phases"]:
        started = datetime.fromisoformat(phase["started_at"])
        if not found:
            found.append(Row("queued", 0.0, _ms(started - created)))
        found.append(Row(phase["name"], _ms(started - created), phase["duration_ms"] or 0.0, phase["outcome"]))
        hold_ms = (job.get("timing") or {}).get("hold_ms")
        if phase["name"] == "thaw" and hold_ms is not None:
            found.append(Row(HELD, found[-1].start_ms - hold_ms, hold_ms))
    return found


def draw(timeline: list[Row], width: int, glyphs: Glyphs) -> Iterator[tuple[Row, str]]:
    """Each row with its line. The bars share one scale that fills `width`."""
    columns = width - NAME_WIDTH - NUMBERS_WIDTH - 2
    end_ms = max((row.start_ms + row.duration_ms for row in timeline), default=0.0) or 1.0
    for row in timeline:
        numbers = f"{row.start_ms:>9,.1f} ms {row.duration_ms:>10,.1f} ms"
        outcome = "" if row.outcome == "ok" else f" {row.outcome}"
        yield row, f"{row.name:<{NAME_WIDTH}}{numbers}  {_bar(row, columns / end_ms, columns, glyphs)}{outcome}"


def header() -> str:
    return f"{'phase':<{NAME_WIDTH}}{'start':>12} {'took':>13}"


def _bar(row: Row, columns_per_ms: float, columns: int, glyphs: Glyphs) -> str:
    start = min(int(row.start_ms * columns_per_ms), columns - 1)
    length = round(row.duration_ms * columns_per_ms)
    glyph = glyphs.held if row.is_hold else glyphs.bar
    return " " * start + (glyph * min(length, columns - start) or glyphs.speck)


def _ms(span: timedelta) -> float:
    return span / timedelta(milliseconds=1)
