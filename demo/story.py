"""The main job, step by step: ask for it, follow it, read what happened, and check it against the guest itself."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import asking, showing
from demo.curl import Curl
from demo.proof import Check, Witness, prove
from demo.screen import Screen
from tests.lab.disks import needs_recovery
from tests.lab.guests import LabGuest
from tests.service_process import ServiceProcess


@dataclass(frozen=True)
class Ending:
    """The final job document, and every claim that was checked."""

    job: dict[str, Any]
    checks: list[Check]

    @property
    def is_good(self) -> bool:
        return all(check.holds for check in self.checks)


def sign_in(screen: Screen, service: ServiceProcess) -> Curl:
    """Step 1: what every further line of the shell uses."""
    curl = Curl(screen)
    screen.step(1, "The token that the first start made")
    curl.set("TOKEN", f"$(cat {shlex.quote(str(service.state_dir / 'admin.token'))})")
    curl.set("API", f"http://127.0.0.1:{service.port}/api/v1")
    return curl


def tell(screen: Screen, curl: Curl, guest: LabGuest) -> Ending:
    """Steps 2 to 6. Raises Refused where the API does not play along."""
    screen.step(2, "What the service knows of the guest")
    showing.show_domain(screen, asking.published(curl, guest.name))
    screen.step(3, "Ask for a snapshot: the job is recorded before anything happens")
    mark = guest.mark()
    job = curl.ask(f'--json \'{{"kind": "snapshot", "domain": "{guest.name}"}}\' $API/jobs')
    screen.note(f"job {job['id']} is {job['state']}")
    screen.step(4, "Follow it to its end")
    job = asking.followed(curl, job["id"])
    showing.show_timeline(screen, job)
    showing.show_verdict(screen, job)
    screen.step(5, "What that means, and what would lift it")
    showing.show_explanation(screen, curl.ask(f"$API/jobs/{job['id']}/explain"))
    screen.step(6, "Is it true? Asked of the guest and of the files, without the service")
    checks = prove(job, _witness(guest, mark, job))
    showing.show_checks(screen, checks)
    return Ending(job, checks)


def _witness(guest: LabGuest, mark: int, job: Mapping[str, Any]) -> Witness:
    disks = (job["recovery_point"] or {"disks": []})["disks"]
    return Witness(
        longest_stall_ms=max((stall.ms for stall in guest.stalls(mark)), default=0.0),
        freeze_status=guest.freeze_status(),
        needs_recovery={disk["file"]: needs_recovery(Path(disk["file"])) for disk in disks},
        running_disk_needs_recovery=any(needs_recovery(file) for file in guest.active_sources().values()),
    )
