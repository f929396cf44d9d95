"""What is wrong with a copy: what waits, what is damaged, and locks that are not kept or not tried."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.model.copy_standing import PROOF_TOO_OLD, WAITS, CopyFault, CopyStanding
from service.model.immutability import Immutability

NOW = datetime(2026, 11, 28, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def standing(*, immutability: Immutability = Immutability.immutable, locks: bool = True, **more: Any) -> CopyStanding:
    values: dict[str, Any] = {"created_at": NOW - timedelta(days=400), "proven_at": NOW, **more}
    return CopyStanding("c1", "offsite", "r1", "nas", immutability, locks, **values)


@pytest.mark.parametrize(
    ("copy", "faults"),
    [
        (standing(), []),
        (standing(waiting_since=NOW - WAITS), []),
        (standing(waiting_since=NOW - WAITS - SECOND), [CopyFault.points_wait]),
        (standing(immutability=Immutability.claims_only), [CopyFault.lock_not_kept]),
        (standing(immutability=Immutability.none), [CopyFault.lock_not_kept]),
        (standing(immutability=Immutability.none, locks=False, proven_at=None), []),
        (standing(immutability=Immutability.unknown), []),
        (standing(proven_at=NOW - PROOF_TOO_OLD), []),
        (standing(proven_at=NOW - PROOF_TOO_OLD - SECOND), [CopyFault.proof_too_old]),
        (standing(immutability=Immutability.unknown, proven_at=None), [CopyFault.proof_too_old]),
        (standing(immutability=Immutability.unknown, proven_at=None, created_at=NOW), []),
        (standing(damaged=1), [CopyFault.points_damaged]),
    ],
)
def test_a_copy_has_the_faults_that_its_facts_show(copy: CopyStanding, faults: list[CopyFault]) -> None:
    assert copy.faults(NOW) == faults
