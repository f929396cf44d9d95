"""Asks for the jobs that attack the sentinels of copies, each at its time. Callers commit."""

from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Copy
from service.model.copied import CopyAction
from service.model.requests import CopyRequest
from service.records import copies, queue
from service.records.orders import order_of

PROVED = {"asked_by": "stillpoint"}
"""The labels of such a job."""


def ask_for_due_proof(session: Session, copy: Copy) -> str | None:
    """The id of the job. None: no proof is due, or another process has asked for it. Raises HostUnknown: no worker of its host was seen."""
    now = database_now(session)
    if copy.proof_due_at is None or copy.proof_due_at > now or not copies.take_turn(session, copy, now):
        return None
    asked = CopyRequest(repository=copy.repository_id, copy=copy.id, action=CopyAction.prove)
    return queue.enqueue(session, order_of(session, asked, dict(PROVED)).as_new_job()).job_id
