"""What must be true for the demo to succeed, from the job and from what was seen without the service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SQL_WRITER = "SqlServerWriter"
CONSISTENT = ("filesystem", "application_unverified", "application")


@dataclass(frozen=True)
class Witness:
    """Seen by others than the service, after the job."""

    longest_stall_ms: float
    """Of the guest's own stall meter: how long a program in the guest could not write."""
    freeze_status: str
    """What the guest's agent answers to guest-fsfreeze-status."""
    needs_recovery: Mapping[str, bool]
    """File of the recovery point to whether its ext4 asks for a replay of its journal."""
    running_disk_needs_recovery: bool


@dataclass(frozen=True)
class Check:
    claim: str
    holds: bool
    evidence: str


def prove(job: Mapping[str, Any], witness: Witness) -> list[Check]:
    """Every claim with its evidence; all of them must hold."""
    return [_succeeded(job), _frozen_meanwhile(job), _felt_by_the_guest(job, witness), _thawed(witness), _clean(witness)]


def _succeeded(job: Mapping[str, Any]) -> Check:
    error = f": {job['error']['detail']}" if job["error"] else ""
    return Check("the job succeeded", job["state"] == "succeeded", f"it {job['state']} with the verdict {job['verdict']}{error}")


def _frozen_meanwhile(job: Mapping[str, Any]) -> Check:
    timing, freeze = job["timing"] or {}, job["freeze"] or {}
    hold_ms, point_ms = timing.get("hold_ms"), timing.get("point_in_time_ms")
    claim = "frozen at the point in time"
    if hold_ms is None or point_ms is None:
        return Check(claim, False, f"there was no hold; the freeze came out as {freeze.get('outcome')}")
    holds = job["verdict"] in CONSISTENT and bool(freeze.get("filesystems_frozen")) and point_ms <= hold_ms
    count = f"{freeze.get('filesystems_frozen')} filesystem(s) frozen"
    return Check(claim, holds, f"{count}; the snapshot took {point_ms:.1f} ms inside a hold of {hold_ms:.1f} ms")


def _felt_by_the_guest(job: Mapping[str, Any], witness: Witness) -> Check:
    point_ms = (job["timing"] or {}).get("point_in_time_ms")
    holds = point_ms is not None and witness.longest_stall_ms >= point_ms
    return Check("felt by the guest", holds, f"a program in the guest could not write for {witness.longest_stall_ms:.1f} ms")


def _thawed(witness: Witness) -> Check:
    return Check("thawed at the end", witness.freeze_status == "thawed", f"the guest's agent says {witness.freeze_status}")


def _clean(witness: Witness) -> Check:
    dirty = sorted(file for file, needs in witness.needs_recovery.items() if needs)
    claim = "the snapshot is clean"
    if dirty:
        return Check(claim, False, f"ext4 needs recovery in {', '.join(dirty)}")
    contrast = ", while the running disk has it" if witness.running_disk_needs_recovery else ""
    return Check(claim, bool(witness.needs_recovery), f"dumpe2fs finds no needs_recovery in its ext4{contrast}")


# --- Windows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WindowsWitness:
    """What the simulated agent knows and no agent tells: how long writes were really held, and what ended that."""

    held_ms: float | None
    ended_by: str | None
    is_frozen: bool


def prove_healthy(job: Mapping[str, Any], witness: WindowsWitness) -> list[Check]:
    """A run in which nothing fails."""
    steps = [step["step"] for step in (job["vss"] or {}).get("steps", [])]
    vss = (job["vss"] or {}).get("outcome")
    return [
        _came_out_as(job, "application"),
        Check("VSS completed", vss == "completed", f"its outcome is {vss}"),
        Check("ten steps on record", steps == list(range(1, 11)), f"the job has {len(steps)}"),
        *_let_go(witness),
    ]


def prove_failed_writer(job: Mapping[str, Any], witness: WindowsWitness, listed: Sequence[str]) -> list[Check]:
    """A run in which SQL Server's writer fails. `listed`: ids of the jobs that the API lists under writer_failed."""
    failed = [writer["name"] for writer in (job["vss"] or {}).get("writers", []) if writer["newly_failed"]]
    reasons = " ".join(reason["detail"] for reason in job["verdict_reasons"] if reason["code"] == "writer_newly_failed")
    is_named = failed == [SQL_WRITER] and SQL_WRITER in reasons
    found = "?writer_failed=true lists the job" if job["id"] in listed else "?writer_failed=true does not list the job"
    return [
        _came_out_as(job, "filesystem"),
        Check("the writer is named", is_named, f"newly failed: {', '.join(failed) or 'none'}"),
        Check("the job can be found", job["id"] in listed, found),
        *_let_go(witness),
    ]


def _came_out_as(job: Mapping[str, Any], verdict: str) -> Check:
    error = f": {job['error']['detail']}" if job["error"] else ""
    holds = job["state"] == "succeeded" and job["verdict"] == verdict
    return Check(f"the verdict is {verdict}", holds, f"the job {job['state']} with the verdict {job['verdict']}{error}")


def _let_go(witness: WindowsWitness) -> list[Check]:
    held = "nothing was held" if witness.held_ms is None else f"the simulator held writes for {witness.held_ms:.1f} ms"
    now = "frozen" if witness.is_frozen else "not frozen"
    return [
        Check("held until the thaw", witness.ended_by == "thaw", f"{held}; what ended it: {witness.ended_by}"),
        Check("thawed in the end", not witness.is_frozen, f"the simulator is {now}"),
    ]
