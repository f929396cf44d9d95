"""The raw texts of a job's evidence. Each has its own row, so that the job's row stays small and texts can be removed alone."""

from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import RawText

Texts = dict[str, dict[str, Any]]
"""The key is the name of the text in the job's `evidence`."""


def keep(session: Session, job_id: str, attempt: int, texts: Texts) -> None:
    """Store the texts of this attempt. They replace the texts of earlier attempts."""
    if not texts:
        return
    session.execute(delete(RawText).where(RawText.job_id == job_id).execution_options(synchronize_session=False))
    now = database_now(session)
    rows = [
        {"job_id": job_id, "name": name, "attempt": attempt, "created_at": now, "document": document} for name, document in texts.items()
    ]
    session.execute(insert(RawText), rows)
