"""The main job, step by step: ask for it, follow it, read what happened, and check it against the guest itself."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import timeline
from demo.curl import Curl, Refused
from demo.proof import Check, Witness, prove
from demo.screen import INDENT, Colour, Screen
from tests.lab.disks import needs_recovery
from tests.lab.guests import LabGuest
from tests.service_process import FINAL, ServiceProcess

PUBLISHED_WITHIN_S = 20.0
ENDED_WITHIN_S = 120.0
MARKS = {"lifts": ("+", Colour.green), "lowers": ("-", Colour.yellow), "notes": (" ", Colour.dim)}


@dataclass(frozen=True)
class Ending:
    """The final job document, and every claim that was checked."""

    job: dict[str, Any]
    checks: list[Check]

    @property
    def is_good(self) -> bool:
        return all(check.holds for check in self.checks)


def tell(screen: Screen, service: ServiceProcess, guest: LabGuest) -> Ending:
    """Raises Refused where the API does not play along."""
    curl = Curl(screen)
    screen.step(1, "The token that the first start made")
    curl.set("TOKEN", f"$(cat {shlex.quote(str(service.state_dir / 'admin.token'))})")
    curl.set("API", f"http://127.0.0.1:{service.port}/api/v1")
    screen.step(2, "What the service knows of the guest")
    _show_domain(screen, _published(curl, guest.name))
    screen.step(3, "Ask for a snapshot: the job is recorded before anything happens")
    mark = guest.mark()
    job = curl.ask(f'--json \'{{"kind": "snapshot", "domain": "{guest.name}"}}\' $API/jobs')
    screen.note(f"job {job['id']} is {job['state']}")
    screen.step(4, "Follow it to its end")
    job = _followed(curl, job["id"])
    _show_timeline(screen, job)
    _show_verdict(screen, job)
    screen.step(5, "What that means, and what would lift it")
    _show_explanation(screen, curl.ask(f"$API/jobs/{job['id']}/explain"))
    screen.step(6, "Is it true? Asked of the guest and of the files, without the service")
    checks = prove(job, _witness(guest, mark, job))
    _show_checks(screen, checks)
    return Ending(job, checks)


# --- asking ---------------------------------------------------------------------------------------


def _published(curl: Curl, name: str) -> dict[str, Any]:
    """The worker publishes its domains a moment after the service is ready."""
    deadline = time.monotonic() + PUBLISHED_WITHIN_S
    line, printed = f"$API/domains/{name}", True
    while True:
        try:
            domain = curl.ask(line, printed=printed)
        except Refused as refused:
            if refused.code != "domain_unknown" or time.monotonic() > deadline:
                raise
        else:
            if domain["agent"] is not None or time.monotonic() > deadline:
                return domain
        printed = False
        time.sleep(0.05)


def _followed(curl: Curl, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + ENDED_WITHIN_S
    line, printed = f"$API/jobs/{job_id}", True
    while (job := curl.ask(line, printed=printed))["state"] not in FINAL:
        if time.monotonic() > deadline:
            raise Refused(f"the job did not end within {ENDED_WITHIN_S:.0f} s: it is {job['state']} in phase {job['phase']}")
        printed = False
        time.sleep(0.03)
    return job


def _witness(guest: LabGuest, mark: int, job: Mapping[str, Any]) -> Witness:
    disks = (job["recovery_point"] or {"disks": []})["disks"]
    return Witness(
        longest_stall_ms=max((stall.ms for stall in guest.stalls(mark)), default=0.0),
        freeze_status=guest.freeze_status(),
        needs_recovery={disk["file"]: needs_recovery(Path(disk["file"])) for disk in disks},
        running_disk_needs_recovery=any(needs_recovery(file) for file in guest.active_sources().values()),
    )


# --- showing --------------------------------------------------------------------------------------


def _show_domain(screen: Screen, domain: Mapping[str, Any]) -> None:
    frozen = {True: "frozen", False: "not frozen", None: "nobody knows whether frozen"}[domain["frozen"]]
    disks = ", ".join(f"{disk['target']} ({disk['reason'] or 'can take part'})" for disk in domain["disks"])
    mounts = ", ".join(f"{mount['mountpoint']} {mount['type']} on {'+'.join(mount['disks'])}" for mount in domain["filesystems"] or [])
    agent = (domain["agent"] or {}).get("version") or "not answering"
    screen.note(f"{domain['state']}, {frozen}; agent {agent}; disks: {disks}; filesystems: {mounts or 'unknown'}")


def _show_timeline(screen: Screen, job: Mapping[str, Any]) -> None:
    screen.line()
    screen.line(INDENT + screen.paint(timeline.header(), Colour.dim))
    glyphs = timeline.BLOCKS if screen.has_blocks else timeline.ASCII
    for row, text in timeline.draw(timeline.rows(job), screen.width - len(INDENT), glyphs):
        screen.line(INDENT + (screen.paint(text, Colour.yellow) if row.is_hold else text))
    window_ms = (job["timing"] or {}).get("window_ms")
    if window_ms is not None:
        screen.line()
        screen.note(f"Freeze sent to thaw answered: {window_ms:.1f} ms. Before and after, the guest ran as ever.")


def _show_verdict(screen: Screen, job: Mapping[str, Any]) -> None:
    screen.line()
    screen.note(f"The job {screen.paint(job['state'], Colour.bold)}; verdict {screen.paint(str(job['verdict']), Colour.bold)}, because:")
    for reason in job["verdict_reasons"]:
        sign, colour = MARKS[reason["effect"]]
        screen.fact(f"{sign} {reason['code']}", reason["detail"], colour, name_width=16)
    if job["error"]:
        screen.fact("error", f"{job['error']['detail']} {job['error']['remedy']}", Colour.red)


def _show_explanation(screen: Screen, explanation: Mapping[str, Any]) -> None:
    screen.note(explanation["summary"])
    for remedy in explanation["would_lift"]:
        screen.fact("to lift it", remedy, Colour.yellow)


def _show_checks(screen: Screen, checks: list[Check]) -> None:
    for check in checks:
        sign, colour = ("yes", Colour.green) if check.holds else ("NO", Colour.red)
        screen.fact(f"{sign:<3} {check.claim}", check.evidence, colour, name_width=32)
