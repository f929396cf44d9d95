"""What the demo concludes from backups and a restore: each claim fails when the thing does."""

from pathlib import Path
from typing import Any

import pytest

from demo.backups import Records, prove_backups

RECORDS = Records(acknowledged=100, restored=120, last=500)


def backup(level: str, copied: int, **fields: Any) -> dict[str, Any]:
    disks = [{"target": "vda", "level": level, "copied_bytes": copied}]
    return {"state": "succeeded", "verdict": "filesystem", "error": None, "result": {"backup": {"disks": disks}}, **fields}


FULL, INCREMENT, RESTORE = backup("full", 1000), backup("bitmap", 10), {"state": "succeeded", "error": None}
FAILED = {"state": "failed", "verdict": "none", "error": {"detail": "the disk is full"}, "result": None}


def failing(
    full: dict[str, Any] = FULL,
    increment: dict[str, Any] = INCREMENT,
    restored: dict[str, Any] = RESTORE,
    records: Records = RECORDS,
    files: int = 1,
) -> list[str]:
    chain = [Path(f"{number}.qcow2") for number in range(files)]
    return [check.claim for check in prove_backups(full, increment, restored, records, chain) if not check.holds]


def test_all_holds_when_all_is_well() -> None:
    assert failing() == []


@pytest.mark.parametrize(
    "seen",
    [
        {"full": FAILED},
        {"increment": FAILED},
        {"increment": backup("full", 10)},
        {"increment": backup("bitmap", 2000)},
        {"increment": backup("bitmap", 10, verdict="crash")},
        {"restored": FAILED},
        {"records": Records(acknowledged=100, restored=99, last=500)},
        {"records": Records(acknowledged=0, restored=0, last=500)},
        {"records": Records(acknowledged=100, restored=500, last=500)},
        {"files": 2},
    ],
)
def test_what_is_not_true_is_named(seen: dict[str, Any]) -> None:
    assert failing(**seen) != []
