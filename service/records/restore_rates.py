"""How fast the restores of a host were: for the plan of the next one."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Job
from service.model.kinds import RESTORES_POINT
from service.model.lifecycle import JobState

LOOKED_AT = 50
"""Jobs, with those that only planned. Older restores say nothing about the storage of today."""
MIN_BYTES = 1 << 20
"""Bytes. A restore of less took its time for other things."""


def rate(session: Session, host_id: str) -> float | None:
    """Bytes a second over the newest restores that succeeded. None: there is no restore on record."""
    newest = (
        select(Job.result)
        .where(Job.host_id == host_id, Job.kind == RESTORES_POINT, Job.state == JobState.succeeded.value)
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(LOOKED_AT)
    )
    results = [(result or {}).get("restore") or {} for result in session.scalars(newest)]
    timed = [(each["written_bytes"], each["write_s"]) for each in results if each.get("written_bytes") and each.get("write_s")]
    timed = [(size, seconds) for size, seconds in timed if size >= MIN_BYTES]
    return sum(size for size, _ in timed) / sum(seconds for _, seconds in timed) if timed else None
