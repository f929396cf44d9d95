"""Finds the host of the domain that a caller names, in the rows that the hosts have published."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, or_, select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Domain, Host
from service.errors import DomainAmbiguous, DomainUnknown
from service.model.inventory import DomainState
from service.records.host_silence import is_silent

_ALIVE = (DomainState.running.value, DomainState.paused.value)


@dataclass(frozen=True)
class DomainLocation:
    domain_id: str
    domain_name: str
    host_id: str
    #: The host has published that another client has frozen the guest.
    is_frozen: bool = False


@dataclass(frozen=True)
class HostLocation:
    """The host that runs a job which is not about a domain."""

    host_id: str
    domain_id: None = None
    domain_name: None = None


JobLocation = DomainLocation | HostLocation


def place_of(session: Session, domain: str, host: str | None) -> DomainLocation:
    """The only domain of this name or UUID. Raises DomainUnknown, DomainAmbiguous."""
    frozen_since = Domain.document["frozen_since"].as_string().label("frozen_since")
    columns = (Domain.id, Domain.name, Domain.host_id, Domain.state, frozen_since)
    meant = select(*columns, Host).join(Host, Host.id == Domain.host_id).where(or_(Domain.id == domain.lower(), Domain.name == domain))
    if host is not None:
        meant = meant.where(Domain.host_id == host)
    rows: list[Row[Any]] = list(session.execute(meant.order_by(Domain.host_id, Domain.name)))
    if not rows:
        raise domain_unknown(session, domain, host)
    candidates = rows if len(rows) == 1 else _running_one(session, rows)
    if len(candidates) > 1:
        raise DomainAmbiguous(domain=domain, hosts=", ".join(sorted({row.host_id for row in rows})))
    (row,) = candidates
    return DomainLocation(row.id, row.name, row.host_id, is_frozen=row.frozen_since is not None)


def _running_one(session: Session, rows: list[Row[Any]]) -> list[Row[Any]]:
    """The row of the only host that runs the domain now. All rows: that is not certain.

    A domain that was restarted on another host is still in the rows of its dead host, and a migrated domain is defined on both hosts. Rows
    of different domains with the same name stay, because the caller may mean any of them.
    """
    if len({row.id for row in rows}) > 1:
        return rows
    now = database_now(session)
    running = [row for row in rows if row.state in _ALIVE and not is_silent(row.Host, now)]
    return running if len(running) == 1 else rows


def domain_unknown(session: Session, domain: str, host: str | None) -> DomainUnknown:
    now = database_now(session)
    seen = {row.id: row.last_seen for row in session.execute(select(Host.id, Host.last_seen).order_by(Host.id))}
    asked = seen if host is None else {identifier: at for identifier, at in seen.items() if identifier == host}
    seen_ago_s = {identifier: (now - at).total_seconds() for identifier, at in seen.items()}
    if asked:
        hosts = ", ".join(f"{identifier} (last seen {_ago(now, at)})" for identifier, at in asked.items())
    elif host is not None:
        hosts = f"{host}, which is not known; known hosts: {', '.join(seen) or 'none'}"
    else:
        hosts = "any host: no worker has reported yet"
    return DomainUnknown(domain=domain, hosts=hosts, host=host, seen_ago_s=seen_ago_s)


def _ago(now: datetime, at: datetime) -> str:
    seconds = max(0.0, (now - at).total_seconds())
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
