"""Documents of the API, as the demo prints them."""

from collections.abc import Mapping
from typing import Any

from demo import timeline
from demo.proof import Check
from demo.screen import INDENT, Colour, Screen

MARKS = {"lifts": ("+", Colour.green), "lowers": ("-", Colour.yellow), "notes": (" ", Colour.dim)}


def show_domain(screen: Screen, domain: Mapping[str, Any]) -> None:
    frozen = {True: "frozen", False: "not frozen", None: "nobody knows whether frozen"}[domain["frozen"]]
    disks = ", ".join(f"{disk['target']} ({disk['reason'] or 'can take part'})" for disk in domain["disks"])
    mounts = ", ".join(f"{mount['mountpoint']} {mount['type']} on {'+'.join(mount['disks'])}" for mount in domain["filesystems"] or [])
    agent = (domain["agent"] or {}).get("version") or "not answering"
    screen.note(f"{domain['state']}, {frozen}. Agent: {agent}. Disks: {disks}. Filesystems: {mounts or 'unknown'}")


def show_timeline(screen: Screen, job: Mapping[str, Any]) -> None:
    screen.line()
    screen.line(INDENT + screen.paint(timeline.header(), Colour.dim))
    glyphs = timeline.BLOCKS if screen.has_blocks else timeline.ASCII
    for row, text in timeline.draw(timeline.rows(job), screen.width - len(INDENT), glyphs):
        screen.line(INDENT + (screen.paint(text, Colour.yellow) if row.is_hold else text))
    window_ms = (job["timing"] or {}).get("window_ms")
    if window_ms is not None:
        screen.line()
        screen.note(f"Freeze sent to thaw answered: {window_ms:.1f} ms. Before and after, the guest ran as ever.")


def show_verdict(screen: Screen, job: Mapping[str, Any]) -> None:
    screen.line()
    screen.note(f"The job {screen.paint(job['state'], Colour.bold)}; verdict {screen.paint(str(job['verdict']), Colour.bold)}, because:")
    for reason in job["verdict_reasons"]:
        sign, colour = MARKS[reason["effect"]]
        screen.fact(f"{sign} {reason['code']}", reason["detail"], colour, name_width=22)
    if job["error"]:
        screen.fact("error", f"{job['error']['detail']} {job['error']['remedy']}", Colour.red)


def show_explanation(screen: Screen, explanation: Mapping[str, Any]) -> None:
    screen.note(explanation["summary"])
    for remedy in explanation["would_lift"]:
        screen.fact("to lift it", remedy, Colour.yellow)


def show_checks(screen: Screen, checks: list[Check]) -> None:
    for check in checks:
        sign, colour = ("yes", Colour.green) if check.holds else ("NO", Colour.red)
        screen.fact(f"{sign:<3} {check.claim}", check.evidence, colour, name_width=32)
