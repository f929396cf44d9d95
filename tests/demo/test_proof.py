"""The demo succeeds only when every claim is borne out; each of them can fail it alone."""

from dataclasses import replace
from typing import Any

import pytest

from demo.proof import Check, WindowsWitness, Witness, prove, prove_failed_writer, prove_healthy

GOOD_WITNESS = Witness(longest_stall_ms=60.0, freeze_status="thawed", needs_recovery={"vda.qcow2": False}, running_disk_needs_recovery=True)
GOOD_JOB: dict[str, Any] = {
    "state": "succeeded",
    "verdict": "filesystem",
    "error": None,
    "freeze": {"outcome": "frozen", "filesystems_frozen": 1},
    "timing": {"hold_ms": 20.0, "point_in_time_ms": 15.0},
}


def failing(job: dict[str, Any], witness: Witness) -> list[str]:
    return [check.claim for check in prove(job, witness) if not check.holds]


def test_a_job_and_a_witness_that_agree_prove_everything() -> None:
    assert failing(GOOD_JOB, GOOD_WITNESS) == []


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({"state": "failed", "error": {"detail": "The agent is gone."}}, ["the job succeeded"]),
        ({"verdict": "crash"}, ["frozen at the point in time"]),
        ({"verdict": "offline"}, ["frozen at the point in time"]),
        ({"freeze": {"outcome": "empty", "filesystems_frozen": 0}}, ["frozen at the point in time"]),
        ({"timing": {"hold_ms": 10.0, "point_in_time_ms": 15.0}}, ["frozen at the point in time"]),
        ({"timing": None, "freeze": None}, ["frozen at the point in time", "felt by the guest"]),
    ],
)
def test_a_job_that_shows_less_proves_less(changes: dict[str, Any], claims: list[str]) -> None:
    assert failing({**GOOD_JOB, **changes}, GOOD_WITNESS) == claims


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({"longest_stall_ms": 14.0}, ["felt by the guest"]),
        ({"freeze_status": "frozen"}, ["thawed at the end"]),
        ({"needs_recovery": {"vda.qcow2": False, "vdb.qcow2": True}}, ["the snapshot is clean"]),
        ({"needs_recovery": {}}, ["the snapshot is clean"]),
    ],
)
def test_a_witness_that_saw_otherwise_is_believed(changes: dict[str, Any], claims: list[str]) -> None:
    assert failing(GOOD_JOB, replace(GOOD_WITNESS, **changes)) == claims


# --- Windows --------------------------------------------------------------------------------------

HEALTHY_JOB: dict[str, Any] = {
    "id": "1",
    "state": "succeeded",
    "verdict": "application",
    "error": None,
    "vss": {"outcome": "completed", "steps": [{"step": number} for number in range(1, 11)], "writers": []},
    "verdict_reasons": [],
}
FAILED_WRITER_JOB: dict[str, Any] = {
    **HEALTHY_JOB,
    "verdict": "filesystem",
    "vss": {"writers": [{"name": "System Writer", "newly_failed": False}, {"name": "SqlServerWriter", "newly_failed": True}]},
    "verdict_reasons": [{"code": "writer_newly_failed", "detail": "SqlServerWriter (SQL Server) failed."}],
}
GOOD_HOLD = WindowsWitness(held_ms=30.0, ended_by="thaw", is_frozen=False)


def untrue(checks: list[Check]) -> list[str]:
    return [check.claim for check in checks if not check.holds]


def test_the_two_windows_jobs_that_came_out_as_told_prove_everything() -> None:
    assert untrue(prove_healthy(HEALTHY_JOB, GOOD_HOLD)) == []
    assert untrue(prove_failed_writer(FAILED_WRITER_JOB, GOOD_HOLD, ["1"])) == []


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({"verdict": "application_unverified"}, ["the verdict is application"]),
        ({"state": "failed", "error": {"detail": "No."}}, ["the verdict is application"]),
        ({"vss": {"outcome": "lost", "steps": HEALTHY_JOB["vss"]["steps"]}}, ["VSS completed"]),
        ({"vss": None}, ["VSS completed", "ten steps on record"]),
    ],
)
def test_a_healthy_run_that_was_none_is_not_passed_off_as_one(changes: dict[str, Any], claims: list[str]) -> None:
    assert untrue(prove_healthy({**HEALTHY_JOB, **changes}, GOOD_HOLD)) == claims


@pytest.mark.parametrize(
    ("changes", "listed", "claims"),
    [
        ({"verdict": "application"}, ["1"], ["the verdict is filesystem"]),
        ({"verdict_reasons": []}, ["1"], ["the writer is named"]),
        ({"vss": {"writers": [{"name": "NTDS", "newly_failed": True}]}}, ["1"], ["the writer is named"]),
        ({"vss": None}, ["1"], ["the writer is named"]),
        ({}, ["2"], ["the job can be found"]),
    ],
)
def test_a_writer_that_failed_must_cost_the_verdict_and_be_named_and_found(
    changes: dict[str, Any], listed: list[str], claims: list[str]
) -> None:
    assert untrue(prove_failed_writer({**FAILED_WRITER_JOB, **changes}, GOOD_HOLD, listed)) == claims


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({"ended_by": "volsnap"}, ["held until the thaw"]),
        ({"ended_by": None, "held_ms": None}, ["held until the thaw"]),
        ({"is_frozen": True}, ["thawed in the end"]),
    ],
)
def test_the_simulator_is_believed_about_the_hold(changes: dict[str, Any], claims: list[str]) -> None:
    assert untrue(prove_healthy(HEALTHY_JOB, replace(GOOD_HOLD, **changes))) == claims
