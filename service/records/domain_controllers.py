"""Whether a guest is a domain controller, by everything that is on record of its domain."""

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from service.db.tables import GuestMemory, Job, RecoveryPoint
from service.model.restore_facts import any_says
from service.model.windows.well_known_writers import NTDS


def is_controller(session: Session, domain_id: str) -> bool | None:
    """True: a point, a job, or the memory of the guest names the writer of Active Directory. None: nothing on record tells.

    A record that lacks the writer says less: a guest whose directory service was stopped lists all writers but that.
    """
    of_points = select(RecoveryPoint.is_domain_controller).where(RecoveryPoint.domain_id == domain_id).distinct()
    return any_says(*session.scalars(of_points), True if _is_named(session, domain_id) else None)


def _is_named(session: Session, domain_id: str) -> bool:
    by_job = select(Job.id).where(Job.domain_id == domain_id, func.lower(cast(Job.vss, String)).contains(NTDS))
    in_memory = select(GuestMemory.domain_id).where(
        GuestMemory.domain_id == domain_id, func.lower(cast(GuestMemory.facts, String)).contains(NTDS)
    )
    return any(session.scalars(each.limit(1)).first() is not None for each in (by_job, in_memory))
