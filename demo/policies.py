"""A policy in a file: what it would do, its runs, a run that was missed while the service was down, and who is protected."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from demo import showing
from demo.backups import REPOSITORY
from demo.commands import Commands
from demo.curl import Curl, Refused
from demo.proof import Check
from demo.screen import Colour, Screen
from tests.lab.guests import LabGuest
from tests.service_process import FINAL, ServiceProcess

POLICY = "demo"
DOCUMENT = """\
name: {policy}
selector:
  names: ["{domain}"]
tracks:
  - name: every-minute
    job: {{kind: backup, repository: {repository}}}
    schedule: {{cron: "* * * * *", time_zone: UTC}}
    retention: {{keep_last: 3}}
promise: {{rpo_s: 600, verdict: filesystem}}
"""
MINUTE = timedelta(minutes=1)
TO_STOP = timedelta(seconds=5)
"""For a service that is told to stop."""
RUN_WITHIN_S = 150.0
"""Seconds for a run that is due at the next minute, and for its backup."""


def tell_policies(screen: Screen, curl: Curl, commands: Commands, service: ServiceProcess, guest: LabGuest, *, folder: Path) -> list[Check]:
    """Steps 13 to 15. `folder`: for the file with the policy."""
    screen.step(13, "A policy in a file: backups every minute, and what is promised. First what it would do in the next week")
    file = folder / "policy.yaml"
    file.write_text(DOCUMENT.format(policy=POLICY, domain=guest.name, repository=REPOSITORY))
    screen.note(f"{file}:")
    for line in file.read_text().splitlines():
        screen.line(f"    {screen.paint(line, Colour.dim)}")
    commands.run("policy", "preview", "--file", str(file))
    commands.run("policy", "apply", "--file", str(file), "--yes")

    screen.step(14, "The service is down while two runs are due. Then it is started again")
    _down_for_two_runs(screen, service, curl, guest)
    runs = _runs_with_a_missed_one(curl)
    _show_runs(screen, runs)

    screen.step(15, "Who is protected as promised, and who is not")
    commands.run("protection", "--all")
    listed = _listed(curl)
    backup = _job_of(curl, _queued(runs)[-1])
    checks = prove_policies(backup, runs, guest.name, listed)
    screen.line()
    showing.show_checks(screen, checks)
    return checks


def _down_for_two_runs(screen: Screen, service: ServiceProcess, curl: Curl, guest: LabGuest) -> None:
    first = _wait(lambda: _next_run(curl, guest), "the policy has no run to come")
    service.stop()
    screen.note(f"The service is stopped. Runs are due at {first:%H:%M} and at {first + MINUTE:%H:%M}.")
    while (left_s := (first + MINUTE - datetime.now(UTC)).total_seconds()) > 0:
        time.sleep(min(left_s, 1.0))
    service.start()
    screen.note(f"It is started again at {datetime.now(UTC):%H:%M:%S}.")


def _next_run(curl: Curl, guest: LabGuest) -> datetime | None:
    """When the first run is due, if there is time to stop the service before."""
    entry = _entry(curl, guest.name)
    at = (entry or {}).get("next_run_at")
    due_at = datetime.fromisoformat(at) if at else None
    return due_at if due_at is not None and due_at - datetime.now(UTC) > TO_STOP else None


def _runs_with_a_missed_one(curl: Curl) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]] | None:
        runs = _runs(curl)
        missed = [run for run in runs if run["outcome"] == "missed"]
        return runs if missed and _queued(runs)[-1]["due_at"] > missed[-1]["due_at"] else None

    runs: list[dict[str, Any]] = _wait(read, "no run was recorded as missed")
    _wait(lambda: _ended(curl, str(_queued(runs)[-1]["job_id"])), "the backup that was caught up did not end")
    return runs


def _entry(curl: Curl, domain: str) -> dict[str, Any] | None:
    return next((entry for entry in _listed(curl) if entry["domain"]["name"] == domain), None)


def _listed(curl: Curl) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = curl.ask('"$API/protection?limit=200"', printed=False)["items"]
    return items


def _runs(curl: Curl) -> list[dict[str, Any]]:
    """The oldest first."""
    items: list[dict[str, Any]] = curl.ask(f'"$API/policies/{POLICY}/runs?limit=50"', printed=False)["items"]
    return items[::-1]


def _queued(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["outcome"] == "queued"]


def _job_of(curl: Curl, run: Mapping[str, Any]) -> dict[str, Any]:
    return curl.ask(f"$API/jobs/{run['job_id']}", printed=False)


def _ended(curl: Curl, job_id: str) -> dict[str, Any] | None:
    job = _job_of(curl, {"job_id": job_id})
    return job if job["state"] in FINAL else None


def _wait(read: Any, otherwise: str) -> Any:
    deadline = time.monotonic() + RUN_WITHIN_S
    while not (answer := read()):
        if time.monotonic() > deadline:
            raise Refused(otherwise)
        time.sleep(0.5)
    return answer


def _show_runs(screen: Screen, runs: Sequence[Mapping[str, Any]]) -> None:
    for run in runs:
        colour = Colour.green if run["outcome"] == "queued" else Colour.yellow
        became = f"job {run['job_id']}" if run["job_id"] else str(run["reason"])
        screen.fact(str(run["outcome"]), f"due {run['due_at']}: {became}", colour)


# --- what must be true ----------------------------------------------------------------------------


def prove_policies(
    backup: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], domain: str, listed: Sequence[Mapping[str, Any]]
) -> list[Check]:
    return [
        _began_by_itself(backup),
        _missed_is_on_record(runs),
        _each_once(runs),
        _is_protected(domain, listed),
        _others_are_told(domain, listed),
    ]


def _began_by_itself(job: Mapping[str, Any]) -> Check:
    holds = job["state"] == "succeeded" and job["verdict"] == "filesystem"
    return Check("a backup began by itself", holds, f"job {job['id']} {job['state']} with the verdict {job['verdict']}")


def _missed_is_on_record(runs: Sequence[Mapping[str, Any]]) -> Check:
    missed = [run for run in runs if run["outcome"] == "missed"]
    told = ", ".join(f"{run['due_at']} ({run['reason']})" for run in missed) or "none"
    return Check("a missed run is on record", bool(missed), f"missed: {told}")


def _each_once(runs: Sequence[Mapping[str, Any]]) -> Check:
    """Every minute from the first run to the last one has one outcome."""
    due = [datetime.fromisoformat(run["due_at"]) for run in runs]
    expected = [due[0] + number * MINUTE for number in range(len(due))] if due else []
    return Check("each due run has one outcome", due == expected and len(due) > 1, f"{len(due)} runs, one minute apart")


def _is_protected(domain: str, listed: Sequence[Mapping[str, Any]]) -> Check:
    (state,) = {entry["state"] for entry in listed if entry["domain"]["name"] == domain} or {"not listed"}
    return Check("the guest is protected", state == "protected", f"it is {state} by policy {POLICY}")


def _others_are_told(domain: str, listed: Sequence[Mapping[str, Any]]) -> Check:
    others = {entry["domain"]["name"]: entry["state"] for entry in listed if entry["domain"]["name"] != domain}
    told = ", ".join(f"{name} is {state}" for name, state in sorted(others.items())) or "there are none"
    return Check("the others are listed, too", bool(others) and set(others.values()) == {"unprotected"}, told)
