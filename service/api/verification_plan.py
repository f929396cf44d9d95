"""Verification by plan as the API answers it."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import VerificationRun
from service.model.verification_budget import LOOK_BACK
from service.model.verification_plan import Planned
from service.records import repositories, verification, verification_next

SHOWN = 20
"""Planned reads, and earlier reads, of one answer."""


def document_of(session: Session, id_or_name: str) -> dict[str, Any]:
    """Raises RepositoryUnknown."""
    repository, now = repositories.get(session, id_or_name), database_now(session)
    budget, runs = verification.budget_of(repository), verification.runs_since(session, repository.id, now - LOOK_BACK)
    spent = verification.spent_of(runs)
    planned = verification_next.reads_of(session, repository.id, now)
    return {
        "budget": budget.as_document() if budget is not None else None,
        "may_begin": verification_next.allowance_of(session, repository.id, now) is not None,
        "left_bytes": budget.left(spent, now) if budget is not None else None,
        "spent_today_bytes": budget.spent_today(spent, now) if budget is not None else 0,
        "next": [_planned(each) for each in planned[:SHOWN]],
        "runs": [_run(run) for run in runs[:SHOWN]],
    }


def _planned(planned: Planned) -> dict[str, Any]:
    return {
        "recovery_point": planned.point_id,
        "domain_id": planned.domain_id,
        "why": planned.why.value,
        "cost_bytes": planned.cost_bytes,
        "due_at": _time(planned.due_at),
        "proven_at": _time(planned.proven_at),
    }


def _run(run: VerificationRun) -> dict[str, Any]:
    return {
        "number": run.number,
        "recovery_point": run.point_id,
        "domain_id": run.domain_id,
        "job_id": run.job_id,
        "why": run.why,
        "begun_at": rfc3339(run.begun_at),
        "cost_bytes": run.cost_bytes,
        "read_bytes": run.read_bytes,
        "took_ms": run.took_ms,
        "outcome": run.outcome,
    }


def _time(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None
