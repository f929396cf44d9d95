"""The same on Windows, whose agent is simulated: one run that goes well, and one in which a writer fails in silence."""

from collections.abc import Mapping
from typing import Any

from demo import asking, showing
from demo.curl import Curl
from demo.proof import Check, WindowsWitness, prove_failed_writer, prove_healthy
from demo.screen import INDENT, Colour, Screen
from tests.lab.windows.agent import WindowsAgent
from tests.lab.windows.guest import WindowsGuest

HEALTHY = "healthy-2022"
FAILED_WRITER = "sql-writer-failed"
STEP_NAME_WIDTH = 33
OBSERVATION_WIDTH = 17


def tell_windows(screen: Screen, curl: Curl, guest: WindowsGuest) -> list[Check]:
    """Steps 7 and 8. The guest plays HEALTHY when it comes."""
    screen.step(7, "Windows with SQL Server, all well: what was seen of the ten steps of a shadow copy")
    showing.show_domain(screen, asking.published(curl, guest.name))
    job = _snapshot(curl, guest.name)
    _show_steps(screen, job)
    showing.show_verdict(screen, job)
    healthy = prove_healthy(job, witness(guest.agent))
    screen.line()
    showing.show_checks(screen, healthy)

    screen.step(8, "The same Windows, and SQL Server's writer fails: freeze and thaw say nothing of it")
    agent = guest.play(FAILED_WRITER)
    job = _snapshot(curl, guest.name)
    _show_writers(screen, job)
    showing.show_verdict(screen, job)
    screen.line()
    listed = curl.ask('"$API/jobs?writer_failed=true"')
    failed = prove_failed_writer(job, witness(agent), [entry["id"] for entry in listed["items"]])
    showing.show_checks(screen, failed)
    return [*healthy, *failed]


def witness(agent: WindowsAgent) -> WindowsWitness:
    """Of the last freeze."""
    session = agent.sessions[-1] if agent.sessions else None
    return WindowsWitness(
        held_ms=None if session is None else (session.writes_released_s - session.began_s) * 1000,
        ended_by=None if session is None else session.ended_by,
        is_frozen=agent.says_frozen(),
    )


def _snapshot(curl: Curl, name: str) -> dict[str, Any]:
    job = curl.ask(f'--json \'{{"kind": "snapshot", "domain": "{name}"}}\' $API/jobs')
    return asking.followed(curl, job["id"])


def _show_steps(screen: Screen, job: Mapping[str, Any]) -> None:
    screen.line()
    header = f"{'step':<{STEP_NAME_WIDTH + 3}}{'':<{OBSERVATION_WIDTH}}{'took':>11}{'limit':>12}"
    screen.line(INDENT + screen.paint(header, Colour.dim))
    for step in (job["vss"] or {}).get("steps", []):
        took = "" if step["duration_ms"] is None else f"{step['duration_ms']:.1f} ms"
        limit = "" if step["limit_ms"] is None else f"{step['limit_ms'] / 1000:.0f} s"
        observed = step["observation"].replace("_", " ")
        line = f"{step['step']:>2} {step['name'].replace('_', ' '):<{STEP_NAME_WIDTH}}{observed:<{OBSERVATION_WIDTH}}{took:>11}{limit:>12}"
        screen.line(INDENT + (screen.paint(line, Colour.yellow) if step["step"] == 6 else line))


def _show_writers(screen: Screen, job: Mapping[str, Any]) -> None:
    screen.line()
    for writer in (job["vss"] or {}).get("writers", []):
        before, after = _state(writer["before"]), _state(writer["after"])
        colour = Colour.red if writer["newly_failed"] else None
        screen.fact(writer["name"], f"before {before}, after {after}", colour, name_width=34)


def _state(writer: Mapping[str, Any] | None) -> str:
    return "not listed" if writer is None else f"[{writer['state']}] {writer['last_error']}"
