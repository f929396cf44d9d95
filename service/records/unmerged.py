"""The overlays that ended jobs left on disks because they could not be merged back."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Job
from service.errors import RecordUnreadable, VersionUnknown
from service.model.intent import Intent, Overlay
from service.model.kinds import SEALS_POINT
from service.model.lifecycle import FINAL_STATES

MAX_JOBS = 50
"""Jobs that are looked at, the newest first. Overlays of older ones are long below others."""


def overlays_left(session: Session, domain_id: str) -> Sequence[Overlay]:
    """The newest first. Whether a disk is on one of them is for libvirt to say. A backup that left nothing has no intent any more."""
    ended = (
        select(Job.intent)
        .where(
            Job.domain_id == domain_id,
            Job.kind == SEALS_POINT,
            Job.state.in_([state.value for state in FINAL_STATES]),
        )
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(MAX_JOBS)
    )
    overlays: list[Overlay] = []
    for document in filter(None, session.scalars(ended)):
        try:
            overlays += Intent.from_document(document).overlays
        except (RecordUnreadable, VersionUnknown):
            continue
    return overlays
