"""A snapshot of the simulated Windows on a machine that may be too busy for the limits of Windows."""

from typing import Any

from tests.lab.windows.agent import WindowsAgent
from tests.lab.windows.guest import WindowsGuest
from tests.lab.windows.scenario import Scenario
from tests.service_process import ServiceProcess

TRIES = 4
TOO_LATE = {"hold_limit_exceeded", "outside_the_hold", "guard_thawed"}


def snapshot_in_time(
    service: ServiceProcess, guest: WindowsGuest, scenario: Scenario | str, **body: Any
) -> tuple[WindowsAgent, dict[str, Any]]:
    """The agent and the job of the first point that came within the hold, or of the last try.

    Windows may be held for 8 s, whoever asks. Where libvirt and QEMU take longer on this machine, the job says so, rightly, and says
    nothing of what a test asks for.
    """
    for _ in range(TRIES):
        agent = guest.play(scenario)
        job = service.run(guest.name, **body)
        if not _came_too_late(job):
            break
    return agent, job


def _came_too_late(job: dict[str, Any]) -> bool:
    reasons = {reason["code"] for reason in job["verdict_reasons"]}
    return (job["error"] or {}).get("code") == "hold_spent" or not reasons.isdisjoint(TOO_LATE)
