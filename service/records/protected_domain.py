"""Finds the domain whose protection a caller asks for. It may be gone: then its schedules still name it."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.db.tables import Domain, Schedule
from service.errors import DomainAmbiguous
from service.records.placement import domain_unknown


def find(session: Session, named: str, host: str | None) -> str:
    """The id of the only domain of this name or UUID. A domain that several hosts publish is one. Raises DomainUnknown, DomainAmbiguous."""
    hosts: dict[str, str] = {}
    for domain_id, name, host_id in (
        (Domain.id, Domain.name, Domain.host_id),
        (Schedule.domain_id, Schedule.domain_name, Schedule.host_id),
    ):
        meant = select(domain_id, host_id).where(or_(domain_id == named.lower(), name == named)).order_by(host_id)
        if host is not None:
            meant = meant.where(host_id == host)
        hosts = {row[0]: row[1] for row in session.execute(meant)}
        if hosts:
            break
    if not hosts:
        raise domain_unknown(session, named, host)
    if len(hosts) > 1:
        raise DomainAmbiguous(domain=named, hosts=", ".join(sorted(hosts.values())))
    return next(iter(hosts))
