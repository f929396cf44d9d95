"""The raw texts of a job's evidence: a row of their own each, so that the row of the job stays small and texts age out alone."""

from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import RawText

Texts = dict[str, dict[str, Any]]
"""By the key under which each stands in the job's `evidence`."""


def keep(session: Session, job_id: str, attempt: int, texts: Texts) -> None:
    """Those of this attempt; they replace what was kept of the job before."""
    if not texts:
        return
    session.execute(delete(RawText).where(RawText.job_id == job_id).execution_options(synchronize_session=False))
    now = database_now(session)
    rows = [
        {"job_id": job_id, "name": name, "attempt": attempt, "created_at": now, "document": document} for name, document in texts.items()
    ]
    session.execute(insert(RawText), rows)
