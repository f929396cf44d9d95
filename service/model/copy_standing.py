"""How a copy of a repository stands, and what is wrong with it. Pure rules."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from service.model.immutability import PROOF_DAYS, Immutability

WAITS = timedelta(days=1)
"""A point that a policy wants on the copy waits too long after that time."""
PROOF_TOO_OLD = timedelta(days=PROOF_DAYS + 3)
"""The sentinel is attacked every 30 days. After a few days more something keeps the attack from being made."""


class CopyFault(StrEnum):
    points_wait = "points_wait"
    """A point that a policy wants there is sealed for longer than a day, and is not there."""
    lock_not_kept = "lock_not_kept"
    """Locks are asked for, and the store has none, or does not keep them."""
    proof_too_old = "proof_too_old"
    """Locks are asked for, and nobody has attacked a sentinel lately."""
    points_damaged = "points_damaged"
    """A check found points that are not what was sent."""


@dataclass(frozen=True)
class CopyStanding:
    """`newest_at`: the point in time of the newest whole point there. `waiting`: points that a policy wants there, and that are not there;
    `waiting_since`: since when the first of them could be sent. `locked_until`: the end of the last lock that the store shows."""

    id: str
    name: str
    repository_id: str
    repository: str
    immutability: Immutability
    asks_for_locks: bool
    created_at: datetime
    proven_at: datetime | None = None
    newest_at: datetime | None = None
    locked_until: datetime | None = None
    damaged: int = 0
    waiting: int = 0
    waiting_since: datetime | None = None

    @property
    def keeps_locks(self) -> bool:
        return self.immutability is Immutability.immutable

    def faults(self, now: datetime) -> list[CopyFault]:
        """In the order of the enumeration."""
        faults: list[CopyFault] = []
        if self.waiting_since is not None and now - self.waiting_since > WAITS:
            faults.append(CopyFault.points_wait)
        if self.asks_for_locks and self.immutability in (Immutability.claims_only, Immutability.none):
            faults.append(CopyFault.lock_not_kept)
        if self.asks_for_locks and now - (self.proven_at or self.created_at) > PROOF_TOO_OLD:
            faults.append(CopyFault.proof_too_old)
        if self.damaged:
            faults.append(CopyFault.points_damaged)
        return faults
