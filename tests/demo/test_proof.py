"""The demo succeeds only when every claim is borne out; each of them can fail it alone."""

from dataclasses import replace
from typing import Any

import pytest

from demo.proof import Witness, prove

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
