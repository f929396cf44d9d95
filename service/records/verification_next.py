"""What verification by plan may read of a repository now, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from service.model.repository import RepositoryState
from service.model.verification_budget import LOOK_BACK, Budget, Spent, can_begin
from service.model.verification_plan import Planned, plan
from service.records import repositories, verification

READABLE = (RepositoryState.ready.value, RepositoryState.full.value, RepositoryState.read_only.value)


@dataclass(frozen=True)
class Allowance:
    """What may be read in a repository now."""

    budget: Budget
    spent: Sequence[Spent]
    now: datetime

    def allows(self, cost_bytes: int) -> bool:
        return can_begin(self.budget, cost_bytes, self.spent, self.now)


def allowance_of(session: Session, repository_id: str, now: datetime) -> Allowance | None:
    """None: there is no budget, or nothing may begin now, however small. Raises RepositoryUnknown."""
    repository = repositories.get(session, repository_id)
    budget = verification.budget_of(repository)
    if budget is None or repository.state not in READABLE:
        return None
    spent = verification.spent_of(verification.runs_since(session, repository_id, now - LOOK_BACK))
    allowance = Allowance(budget, spent, now)
    return allowance if allowance.allows(1) else None


def reads_of(session: Session, repository_id: str, now: datetime) -> list[Planned]:
    """In their order."""
    return plan(verification.stored_points(session, repository_id), verification.promised_proofs(session), now)
