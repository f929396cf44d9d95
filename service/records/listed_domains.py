"""The domains that hosts list now, each of them once, as selectors of policies see them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, select
from sqlalchemy.orm import Session

from service.db.tables import Domain as DomainRow
from service.db.tables import DomainLabels, Host
from service.model.inventory import DomainState
from service.model.selectors import Domain
from service.records.host_silence import is_silent

_ALIVE = (DomainState.running.value, DomainState.paused.value)
_DOMAINS = select(DomainRow.id, DomainRow.name, DomainRow.host_id, DomainRow.state, DomainRow.published_at)
_LABELS = select(DomainLabels.domain_id, DomainLabels.labels)
_NAMED_DOMAINS = _DOMAINS.where(DomainRow.id.in_(bindparam("ids", expanding=True)))
_NAMED_LABELS = _LABELS.where(DomainLabels.domain_id.in_(bindparam("ids", expanding=True)))


def listed(session: Session, now: datetime, ids: Collection[str] | None = None) -> dict[str, Domain]:
    """By id. A domain that two hosts list is where it runs, or else where it was seen last. `ids` None: all."""
    domains, labels, named = (_DOMAINS, _LABELS, {}) if ids is None else (_NAMED_DOMAINS, _NAMED_LABELS, {"ids": list(ids)})
    of_domains = {row.domain_id: dict(row.labels) for row in session.execute(labels, named)}
    rows: list[Row[Any]] = list(session.execute(domains, named))
    places = {row.id: row for row in rows}
    if len(places) < len(rows):
        places = _of_two_hosts(session, rows, now)
    return {row.id: Domain(row.id, row.name, row.host_id, of_domains.get(row.id, {})) for row in places.values()}


def targets_of(session: Session, domain: Domain) -> tuple[str, ...]:
    """The disks that can take part, as the host of the domain published them last."""
    document = session.scalar(select(DomainRow.document).where(DomainRow.host_id == domain.host, DomainRow.id == domain.id))
    return tuple(disk["target"] for disk in (document or {}).get("disks", ()) if disk.get("can_snapshot"))


def _of_two_hosts(session: Session, rows: Sequence[Row[Any]], now: datetime) -> dict[str, Row[Any]]:
    silent = {host.id for host in session.scalars(select(Host)) if is_silent(host, now)}
    return {row.id: row for row in sorted(rows, key=lambda row: _claim(row, silent))}


def _claim(row: Row[Any], silent: Collection[str]) -> tuple[bool, datetime]:
    """The host with the larger claim has the domain."""
    return row.state in _ALIVE and row.host_id not in silent, row.published_at
