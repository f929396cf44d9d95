"""What thaw guards left on this host: a file for each that has something to tell, or is still at work."""

import fcntl
import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

LONGEST = 4096


@dataclass(frozen=True)
class GuardReport:
    """`state`: `watching`, `thawing` or `thawed`. `is_alive`: the guard was there when this was read."""

    job_id: str
    domain: str
    pid: int
    state: str
    is_alive: bool
    reason: str | None = None
    outcome: str | None = None
    count: int | None = None
    message: str | None = None
    attempts: int = 0
    thaw_sent_at: str | None = None
    thawed_at: str | None = None


def folder(state_dir: Path) -> Path:
    return state_dir / "guards"


def path_of(state_dir: Path, job_id: str) -> Path:
    return folder(state_dir) / f"{job_id}.json"


def read(state_dir: Path, job_id: str) -> GuardReport | None:
    """None: there is none, or it cannot be read."""
    return _read(path_of(state_dir, job_id))


def of_domain(state_dir: Path, domain_id: str) -> list[GuardReport]:
    reports = [_read(path) for path in folder(state_dir).glob("*.json")]
    return [report for report in reports if report is not None and report.domain == domain_id]


def remove(state_dir: Path, job_id: str) -> None:
    with suppress(OSError):
        path_of(state_dir, job_id).unlink(missing_ok=True)


def end(state_dir: Path, job_id: str) -> None:
    """Kill the guard if it is still there; only for a guest that is known to be thawed."""
    report = read(state_dir, job_id)
    if report is not None and report.is_alive:
        # The lock says that the process of this number is still the guard: it is released with its death.
        with suppress(OSError):
            os.kill(report.pid, signal.SIGKILL)


def _read(path: Path) -> GuardReport | None:
    try:
        with path.open("rb") as file:
            is_alive = _is_locked(file.fileno())
            document: dict[str, Any] = json.loads(file.read(LONGEST))
        known = {field.name for field in fields(GuardReport)}
        return GuardReport(**{name: value for name, value in document.items() if name in known}, is_alive=is_alive)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
