"""Shows a job while it runs: bars on a terminal, lines otherwise. All of it goes to standard error."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_EVERY_S = 10.0
"""Seconds between two lines about the same phase. What comes between them is not shown."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Display(Protocol):
    def show(self, job: Mapping[str, Any]) -> None:
        """Called with each answer of the service."""
        ...


@contextmanager
def display() -> Iterator[Display]:
    if not sys.stderr.isatty():
        yield Lines()
        return
    bars = Bars()
    with bars.progress:
        yield bars


class Lines:
    """A line for each phase and each disk that begins, and then one now and then."""

    def __init__(self) -> None:
        self._subject: tuple[Any, ...] | None = None
        self._shown_at = 0.0

    def show(self, job: Mapping[str, Any]) -> None:
        progress = job.get("progress") or {}
        subject = (job["state"], job["phase"], progress.get("disk"), (progress.get("waiting_for") or {}).get("code"))
        now = time.monotonic()
        if subject == self._subject and (not progress or now - self._shown_at < LINE_EVERY_S):
            return
        self._subject, self._shown_at = subject, now
        typer.echo(" ".join(part for part in (title_of(job), in_words(progress)) if part), err=True)


class Bars:
    """One bar for each phase and each disk. Those that have ended stay above."""

    def __init__(self) -> None:
        # Imported here, because it takes longer than the rest of the command.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
        self.progress: Progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def show(self, job: Mapping[str, Any]) -> None:
        title, progress = title_of(job), job.get("progress") or {}
        if title not in self._tasks:
            for task in self._tasks.values():
                self._end(task)
            # Without a total a bar moves to and fro, as long as nothing is known.
            self._tasks[title] = self.progress.add_task(title, total=None, words="")
        total, done = progress.get("total_bytes"), progress.get("done_bytes") or 0
        self.progress.update(self._tasks[title], total=total or None, completed=done, words=in_words(progress))

    def _end(self, task: "TaskID") -> None:
        total = next(each.total for each in self.progress.tasks if each.id == task) or 1
        self.progress.update(task, total=total, completed=total)
        self.progress.stop_task(task)


def title_of(job: Mapping[str, Any]) -> str:
    disk = (job.get("progress") or {}).get("disk")
    return " ".join(part for part in (job["phase"] or job["state"], disk) if part)


def in_words(progress: Mapping[str, Any]) -> str:
    """Such as "1.2 GiB of 3.0 GiB, 210.0 MiB/s, 12 s left". What is not known is left out."""
    if not progress:
        return ""
    if waiting := progress.get("waiting_for"):
        return f"waits since {waiting['since']}, and gives up at {waiting['until']}: {waiting['detail']}"
    done, total = progress.get("done_bytes"), progress.get("total_bytes")
    rate, left_s = progress.get("rate_bytes_s"), progress.get("seconds_left")
    size = f"{in_bytes(done or 0)} of {in_bytes(total)}" if total is not None else in_bytes(done or 0)
    parts = (size, f"{in_bytes(rate)}/s" if rate is not None else None, f"{in_time(left_s)} left" if left_s is not None else None)
    return ", ".join(part for part in parts if part)


def in_bytes(count: float | None) -> str:
    if count is None:
        return "unknown"
    for unit in UNITS:
        if count < 1024 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit is always enough")


def in_time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{hours} h {minutes % 60:02} min" if hours else f"{minutes} min {whole % 60:02} s"
