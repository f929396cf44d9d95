"""What a benchmark found: on the screen, and as JSON with every round."""

import json
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.interleaving import Course

FOLDER = Path(__file__).resolve().parents[1] / "build" / "bench"


@dataclass(frozen=True)
class Goal:
    """`at_most`, or at least where that is False."""

    limit: float
    at_most: bool = True

    def is_met(self, figure: float) -> bool:
        return figure <= self.limit if self.at_most else figure >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:g}"


GOALS = {
    "stall_idle_vs_virsh": Goal(0.85),
    "stall_idle_vs_floor": Goal(1.4),
    "freeze_dirty_vs_virsh": Goal(0.1),
    "api_get_job_vs_bare": Goal(0.5, at_most=False),
    "api_list_vs_bare": Goal(0.5, at_most=False),
    "list_1m_vs_1k": Goal(1.3),
    "pickup_p50_ms": Goal(50),
    "idle_rss_mb": Goal(150),
    "hold_windows_1disk_ms": Goal(40),
    "hold_windows_8disks_ms": Goal(80),
    "guard_cost_ms": Goal(2),
    "api_create_p99_ms": Goal(100),
    "claim_10k_backlog_ms": Goal(5),
    "stall_under_flood_vs_other_process": Goal(1.1),
    "backup_full_vs_convert": Goal(1.3),
    "backup_inc_vs_virtnbdbackup": Goal(0.3),
    "backup_full_vs_virtnbdbackup": Goal(0.5),
    "restore_vs_virtnbdrestore": Goal(0.5),
    "instant_first_answer_vs_boot": Goal(1.3),
    "instant_first_answer_vs_boot_10x": Goal(1.3),
    "stall_backup_vs_virtnbdbackup": Goal(0.7),
    "stall_backup_vs_snapshot": Goal(1.1),
    "guest_sync_hung_repository_vs_quiet": Goal(1.5),
    "guest_sync_full_repository_vs_quiet": Goal(1.5),
    "backup_10gib_rss_mb": Goal(250),
    "schedule_late_p99_ms": Goal(1000),
    "schedule_cpu_share": Goal(0.3),
    "protection_5000_ms": Goal(200),
    "preview_20000_ms": Goal(1000),
}


@dataclass
class Report:
    benchmark: str
    seed: int
    courses: list[Course]
    figures: dict[str, float]
    #: What a reader must know to repeat or to doubt it.
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    def as_document(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "date": self.date.isoformat(timespec="seconds"),
            "machine": _machine(self.versions),
            "settings": {"seed": self.seed, **self.settings},
            "rounds": [
                {"course": course.title, "round": turn.number, "measured": turn.measured}
                for course in self.courses
                for turn in course.rounds
            ],
            "medians": {course.title: course.medians() for course in self.courses},
            "figures": {name: round(figure, 4) for name, figure in self.figures.items()},
            "goals": {
                name: {"goal": str(GOALS[name]), "met": GOALS[name].is_met(figure)}
                for name, figure in self.figures.items()
                if name in GOALS
            },
        }


def save(report: Report) -> Path:
    """The file, as a path from here where that is shorter."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = FOLDER / f"{report.benchmark}.json"
    target.write_text(json.dumps(report.as_document(), indent=1) + "\n")
    return target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target


def show(report: Report) -> None:
    for course in report.courses:
        medians = course.medians()
        columns = list(dict.fromkeys(number for numbers in medians.values() for number in numbers))
        rows = [[name, *(_shown(numbers.get(column)) for column in columns)] for name, numbers in medians.items()]
        _print_table(f"{course.title} (medians of {len(course.rounds)} rounds)", ["", *columns], rows)
    rows = []
    for name, figure in report.figures.items():
        goal = GOALS.get(name)
        rows.append([name, f"{figure:.3g}", str(goal or ""), "" if goal is None else "met" if goal.is_met(figure) else "NOT MET"])
    _print_table(f"{report.benchmark}: figures", ["", "figure", "goal", ""], rows)


def _shown(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:.0f}" if number >= 1000 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print(f"\n{title}")
    for row in [header, *rows]:
        print("  " + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]))


def _machine(further: dict[str, str]) -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("stillpoint", "fastapi", "uvicorn", "sqlalchemy")},
            "sqlite": sqlite3.sqlite_version,
            **further,
        },
    }


def program_version(command: Sequence[str]) -> str:
    """The first number with dots that the program prints about itself."""
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", printed.stdout + printed.stderr)
    return found.group() if found else "unknown"
