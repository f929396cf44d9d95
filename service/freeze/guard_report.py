"""Reads the report of a thaw guard, `<state_dir>/guards/<job_id>.json`. A guard writes a file, because it has no database connection."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from service.model.window import GuardReason, GuardReport, GuardState, ThawOutcome

T = TypeVar("T")
POLL_S = 0.05
"""Seconds between two looks at the report of a guard that is still alive."""
MAX_BYTES = 65536
"""Bytes that are read of a report. A report has 4096 bytes. A larger file is not a report, and must not fill the memory."""
DIES_WITHIN_S = 2.0
"""Seconds until a killed guard must have released its lock. Then it counts as hanging in the kernel."""


def folder(state_dir: Path) -> Path:
    return state_dir / "guards"


def path_of(state_dir: Path, job_id: str) -> Path:
    return folder(state_dir) / f"{job_id}.json"


def of_domain(state_dir: Path, domain_id: str, others: Collection[str] = ()) -> list[GuardReport]:
    """The reports of one domain, and those without a domain. `others`: jobs that are known to be of another domain."""
    reports = [read(state_dir, path.stem) for path in folder(state_dir).glob("*.json") if path.stem not in others]
    return [report for report in reports if report is not None and report.domain in (domain_id, None)]


def read(state_dir: Path, job_id: str) -> GuardReport | None:
    """None: no report, so the job had no guard. A file that cannot be understood gives a report with a `fault`."""
    try:
        with path_of(state_dir, job_id).open("rb") as file:
            return _read_open(job_id, file)
    except FileNotFoundError:
        return None
    except OSError as error:
        return GuardReport(job_id, fault=_cannot_be_read(error))


def end(state_dir: Path, job_id: str, patience_s: float) -> bool:
    """Wait until the guard ends by itself, then kill it. Only for a guest that is known to be thawed. False: the guard is still alive."""
    if _ended_within(state_dir, job_id, patience_s):
        return True
    # The lock shows that this process is still the guard, because a process that dies releases its locks.
    holder = _holder(path_of(state_dir, job_id))
    if holder is not None and holder != os.getpid():
        with suppress(OSError):
            os.kill(holder, signal.SIGKILL)
    return _ended_within(state_dir, job_id, DIES_WITHIN_S)


def _ended_within(state_dir: Path, job_id: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (report := read(state_dir, job_id)) is not None and report.is_alive:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def remove(state_dir: Path, job_id: str) -> None:
    # A report that cannot be removed does no harm: the job has ended, and the next attempt makes a new report.
    with suppress(OSError):
        path_of(state_dir, job_id).unlink()


def _holder(path: Path) -> int | None:
    """The process that holds the lock of the file, as the kernel says. The content of the file may be wrong."""
    with suppress(OSError):
        inode = str(path.stat().st_ino)
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        holders = [int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[3] == "WRITE" and lock[5].rpartition(":")[2] == inode]
        return next((pid for pid in holders if _has_open(pid, path)), None)
    return None


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has this very file open: an inode number alone may be of another filesystem."""
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if descriptor.samefile(path):
                    return True
    return False


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _read_open(job_id: str, file: BinaryIO) -> GuardReport:
    is_alive = _is_locked(file.fileno())
    try:
        content = file.read(MAX_BYTES)
    except OSError as error:
        return GuardReport(job_id, is_alive=is_alive, fault=_cannot_be_read(error))
    return _read(job_id, content, is_alive=is_alive)


def _cannot_be_read(error: OSError) -> str:
    return f"its report cannot be read ({error.strerror or error})"


def _read(job_id: str, content: bytes, *, is_alive: bool) -> GuardReport:
    # The file is preallocated, so the part that the guard did not write is zeros or blanks.
    text = content.strip(b"\0 \r\n\t")
    if not text:
        return GuardReport(job_id, is_alive=is_alive, fault="its report is empty")
    try:
        return replace(from_document(json.loads(text)), job_id=job_id, is_alive=is_alive)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return GuardReport(job_id, is_alive=is_alive, fault=f"its report cannot be understood ({type(error).__name__})")


def from_document(document: dict[str, Any]) -> GuardReport:
    """The report that a guard wrote or sent. Raises ValueError, KeyError, TypeError, AttributeError."""
    reason, outcome = document.get("reason"), document.get("outcome")
    return GuardReport(
        job_id=document["job_id"],
        domain=_as(str, document["domain"]),
        pid=_as(int, document["pid"]),
        state=GuardState(document["state"]),
        reason=GuardReason(reason) if reason is not None else None,
        outcome=ThawOutcome(outcome) if outcome is not None else None,
        count=_as(int, document.get("count")),
        message=_as(str, document.get("message")),
        attempts=_as(int, document.get("attempts")) or 0,
        thaw_sent_at=_as(str, document.get("thaw_sent_at")),
        thawed_at=_as(str, document.get("thawed_at")),
        thaw_sent_ns=_as(int, document.get("thaw_sent_ns")),
        thaw_reply_ns=_as(int, document.get("thaw_reply_ns")),
    )


def _as(kind: type[T], value: Any) -> T | None:
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise TypeError(f"{value!r} is not of type {kind.__name__}")


def _ms_between(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000
    except (ValueError, TypeError):
        return None


# --- the report in the story of a job -----------------------------------------------------------------


def as_sentence(report: GuardReport) -> str:
    if report.fault is not None:
        return f"What its thaw guard did is not known: {report.fault}."
    if report.state is GuardState.thawed:
        return f"Its thaw guard thawed the guest {_why(report)}{_how(report)}."
    if report.is_alive:
        return f"Its thaw guard (process {report.pid}) is still {report.state}; recovery thaws as well."
    return f"Its thaw guard died while it was {report.state}."


def _why(report: GuardReport) -> str:
    return "when its deadline passed" if report.reason is GuardReason.deadline else "when the worker was gone"


def _how(report: GuardReport) -> str:
    took = _ms_between(report.thaw_sent_at, report.thawed_at)
    answered = f", answered after {took:.0f} ms" if took is not None else ""
    return f"{answered} ({report.count} filesystems)" if report.count is not None else f"{answered} ({report.message or 'no count'})"
