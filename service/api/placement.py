"""Which host has the domain that a caller means, by what the hosts have published."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Domain, Host
from service.errors import DomainAmbiguous, DomainUnknown


@dataclass(frozen=True)
class Place:
    domain_id: str
    domain_name: str
    host_id: str


def place_of(session: Session, domain: str, host: str | None) -> Place:
    """The one domain of this name or UUID. Raises DomainUnknown, DomainAmbiguous."""
    meant = select(Domain.id, Domain.name, Domain.host_id).where(or_(Domain.id == domain.lower(), Domain.name == domain))
    if host is not None:
        meant = meant.where(Domain.host_id == host)
    found = [Place(*row) for row in session.execute(meant.order_by(Domain.host_id, Domain.name))]
    if not found:
        raise _unknown(session, domain, host)
    if len(found) > 1:
        hosts = sorted({place.host_id for place in found})
        raise DomainAmbiguous(domain=domain, hosts=", ".join(hosts))
    return found[0]


def _unknown(session: Session, domain: str, host: str | None) -> DomainUnknown:
    now = database_now(session)
    seen = {row.id: row.last_seen for row in session.execute(select(Host.id, Host.last_seen).order_by(Host.id))}
    asked = seen if host is None else {identifier: at for identifier, at in seen.items() if identifier == host}
    if asked:
        hosts = ", ".join(f"{identifier} (last seen {_ago(now, at)})" for identifier, at in asked.items())
    elif host is not None:
        hosts = f"{host}, which is not known; known hosts: {', '.join(seen) or 'none'}"
    else:
        hosts = "any host: no worker has reported yet"
    return DomainUnknown(domain=domain, hosts=hosts)


def _ago(now: datetime, at: datetime) -> str:
    seconds = max(0.0, (now - at).total_seconds())
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
