"""Refuses a job that would freeze a guest which another client has frozen."""

from datetime import timedelta

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Domain, Job
from service.errors import GuestAlreadyFrozen
from service.model.foreign_freeze import FOREIGN_FREEZE_MAX_AGE_S, in_one_shape
from service.model.kinds import names_of
from service.model.lifecycle import JobState
from service.records import freeze_lease
from service.records.placement import DomainLocation, JobLocation

THAWS = names_of(lambda kind: kind.thaws)


def refuse_if_frozen(session: Session, place: JobLocation) -> None:
    """Raises GuestAlreadyFrozen, but only if the host has seen the freeze lately. Otherwise the worker finds out by itself.

    A guest that a job of this service holds is not refused: the new job waits in the queue.
    """
    if not (isinstance(place, DomainLocation) and place.is_frozen):
        return
    domain = session.get(Domain, (place.host_id, place.domain_id))
    if domain is None or domain.document.get("frozen") is not True or domain.document.get("frozen_since") is None:
        return
    if domain.published_at < database_now(session) - timedelta(seconds=FOREIGN_FREEZE_MAX_AGE_S):
        return
    if freeze_lease.open_windows(session, [place.domain_id]) or _was_thawed_since(session, domain):
        return
    by = in_one_shape(domain.document["frozen_by"])
    raise GuestAlreadyFrozen(domain=place.domain_name, frozen_by=by, frozen_since=domain.document["frozen_since"])


def _was_thawed_since(session: Session, domain: Domain) -> bool:
    """A job that thaws the guest has succeeded since the host looked. The host will look again soon."""
    ended = exists().where(
        Job.domain_id == domain.id,
        Job.kind.in_(THAWS),
        Job.state == JobState.succeeded,
        Job.finished_at > domain.published_at,
    )
    return bool(session.scalar(select(ended)))
