"""The domains of every host, as their workers published them last: what a restored domain must not be confused with."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Domain, Host
from service.model.inventory import DomainState
from service.model.restore_facts import KnownDomain
from service.records.host_silence import is_silent


def of_host(session: Session, host_id: str) -> list[KnownDomain]:
    return [known for known in _all(session) if known.host == host_id]


def of_other_hosts(session: Session, host_id: str) -> list[KnownDomain]:
    """The state of a domain whose host is silent is not known."""
    return [known for known in _all(session) if known.host != host_id]


def is_anywhere(session: Session, domain_id: str) -> bool:
    return session.scalars(select(Domain.id).where(Domain.id == domain_id)).first() is not None


def _all(session: Session) -> list[KnownDomain]:
    now = database_now(session)
    silent = {host.id for host in session.scalars(select(Host)) if is_silent(host, now)}
    return [_known(row, is_silent=row.host_id in silent) for row in session.scalars(select(Domain).order_by(Domain.host_id, Domain.id))]


def _known(row: Domain, *, is_silent: bool) -> KnownDomain:
    macs = row.document.get("macs")
    state = DomainState.other if is_silent else DomainState(row.state)
    return KnownDomain(row.id, row.name, state, frozenset(macs) if macs is not None else None, row.host_id)
