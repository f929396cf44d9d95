"""What the demo concludes from a policy: each claim fails when the thing does."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from demo.policies import prove_policies

BACKUP = {"id": "1", "state": "succeeded", "verdict": "filesystem"}
GUEST = {"domain": {"name": "guest"}, "state": "protected"}
OTHER = {"domain": {"name": "other"}, "state": "unprotected"}


def run(minute: int, outcome: str) -> dict[str, Any]:
    job_id = "1" if outcome == "queued" else None
    return {"due_at": f"2026-11-28T10:{minute:02}:00Z", "outcome": outcome, "reason": None if job_id else "newer_due", "job_id": job_id}


MISSED, QUEUED = run(1, "missed"), run(2, "queued")


def failing(
    backup: Mapping[str, Any] = BACKUP,
    runs: Sequence[Mapping[str, Any]] = (MISSED, QUEUED),
    listed: Sequence[Mapping[str, Any]] = (GUEST, OTHER),
) -> list[str]:
    return [check.claim for check in prove_policies(backup, runs, "guest", listed) if not check.holds]


def test_all_holds_when_all_is_well() -> None:
    assert failing() == []


@pytest.mark.parametrize(
    "seen",
    [
        {"backup": {**BACKUP, "state": "failed"}},
        {"backup": {**BACKUP, "verdict": "crash"}},
        {"runs": [run(1, "queued"), QUEUED]},
        {"runs": [MISSED, QUEUED, QUEUED]},
        {"runs": [MISSED, run(3, "queued")]},
        {"listed": [{**GUEST, "state": "broken"}, OTHER]},
        {"listed": [OTHER]},
        {"listed": [GUEST]},
        {"listed": [GUEST, {**OTHER, "state": "protected"}]},
    ],
)
def test_each_claim_fails_when_the_thing_does(seen: dict[str, Any]) -> None:
    assert len(failing(**seen)) == 1
