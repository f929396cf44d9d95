"""Writes the figures of backups into the README: `python -m benchmarks.readme`, after `make bench ONLY=backup`.

A row that is there is replaced, one that is not comes to the end of the table. Where `build/bench/backup.json` lacks a figure, nothing
is written.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import FOLDER

README = Path(__file__).resolve().parents[1] / "README.md"
END = "<!-- /bench -->"
BACKUPS, FAULTS, LARGE = "backup, increment, restore", "a repository that fails", "a backup of 10 GiB"


def main() -> int:
    document = json.loads((FOLDER / "backup.json").read_text())
    text = README.read_text()
    for row in rows(document):
        text = _entered(text, row)
    README.write_text(text)
    return 0


def rows(document: Mapping[str, Any]) -> list[str]:
    """The rows of the table, in Markdown."""
    figures = {name: Figure(document, name) for name in document["figures"]}
    seconds, stall = "{:.2f} s", "{:.1f} ms"
    first, first_large = "first answer, 1 GiB disk", "first answer, 10 GiB disk"
    return [
        figures["backup_full_vs_convert"].row(
            "a full backup of a 1 GiB disk with 300 MiB until it is sealed, against `qemu-img convert -U` and a sync",
            (BACKUPS, "stillpoint", "full_s", seconds),
            (BACKUPS, "qemu-img convert", "full_s", seconds),
        ),
        figures["backup_copy_vs_convert"].row(
            "the same without the preflight and the freeze: copy, comparison and seal",
            (BACKUPS, "stillpoint", "full_copy_s", seconds),
            (BACKUPS, "qemu-img convert", "full_s", seconds),
        ),
        figures["backup_full_vs_virtnbdbackup"].row("a full backup, against virtnbdbackup", *_both("full_s", seconds)),
        figures["backup_inc_vs_virtnbdbackup"].row("an increment after 5% changed", *_both("inc_s", seconds)),
        figures["restore_vs_virtnbdrestore"].row("a restore from the full backup and the increment", *_both("restore_s", seconds)),
        figures["instant_first_answer_vs_boot"].row(
            "an instant restore until the agent answers, against a plain boot",
            (first, "instant", "answer_s", seconds),
            (first, "boot", "answer_s", seconds),
        ),
        figures["instant_first_answer_vs_boot_10x"].row(
            "the same for a disk ten times as large",
            (first_large, "instant", "answer_s", seconds),
            (first_large, "boot", "answer_s", seconds),
        ),
        figures["stall_backup_vs_virtnbdbackup"].row("the longest write stall in a full backup", *_both("full_stall_ms", stall)),
        figures["stall_backup_vs_snapshot"].row(
            "the same, against a snapshot",
            (BACKUPS, "stillpoint", "full_stall_ms", stall),
            (BACKUPS, "stillpoint snapshot", "stall_ms", stall),
        ),
        *(_fault_row(figures, word, what) for word, what in (("hung", "hangs"), ("full", "is full"))),
        figures["backup_10gib_rss_mb"].row(
            "memory of the service and all of its processes in a backup of 10 GiB, shared pages counted for each (virtnbdbackup: "
            f"{figures['backup_10gib_rss_mb: virtnbdbackup'].value:.0f})"
        ),
        figures["backup_10gib_cpu_s_per_gib"].row(
            "seconds of a processor for each GiB, its checksums and its comparison included (virtnbdbackup: "
            f"{figures['backup_10gib_cpu_s_per_gib: virtnbdbackup'].value:.1f})"
        ),
    ]


Median = tuple[str, str, str, str]
"""Course, contestant, number, and how it is shown."""


class Figure:
    def __init__(self, document: Mapping[str, Any], name: str) -> None:
        self.name = name
        self._document = document
        self.value = float(document["figures"][name])

    def row(self, about: str, *medians: Median) -> str:
        goal = self._document["goals"].get(self.name, {"goal": "", "met": True})
        beside = " / ".join(shown.format(self._document["medians"][course][who][number]) for course, who, number, shown in medians)
        value = f"{self.value:.3g}" + (f" ({beside})" if beside else "") + ("" if goal["met"] else ": not reached")
        return f"| `{self.name}`: {about} | {value} | {goal['goal'].replace('<=', '≤')} |"


def _both(number: str, shown: str) -> tuple[Median, Median]:
    return (BACKUPS, "stillpoint", number, shown), (BACKUPS, "virtnbdbackup", number, shown)


def _fault_row(figures: Mapping[str, Figure], word: str, what: str) -> str:
    shown = "{:.0f} ms"
    ours = (FAULTS, f"stillpoint, repository {what}", "held_ms", shown)
    quiet = (FAULTS, f"without a backup, repository {what}", "held_ms", shown)
    others = []
    for who in ("virsh", "virtnbdbackup"):
        paused_s = figures[f"guest_paused_{word}_repository_s: {who}"].value
        held = f"{figures[f'guest_sync_{word}_repository_ms: {who}'].value:.0f} ms"
        others.append(f"{who}: {'the domain was paused' if paused_s else held}")
    about = f"the longest fdatasync or write in the guest while the repository {what}, against no backup ({', '.join(others)})"
    return figures[f"guest_sync_{word}_repository_vs_quiet"].row(about, ours, quiet)


def _entered(text: str, row: str) -> str:
    lines, start = text.split("\n"), row.partition(":")[0]
    for number, line in enumerate(lines):
        if line.startswith(f"{start}:"):
            lines[number] = row
            return "\n".join(lines)
    end = lines.index(END)
    last = max(number for number in range(end) if lines[number].startswith("|"))
    return "\n".join([*lines[: last + 1], row, *lines[last + 1 :]])


if __name__ == "__main__":
    sys.exit(main())
