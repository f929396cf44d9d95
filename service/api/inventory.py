"""Hosts and domains as the API answers them: the rows that workers published, and whether these rows are still recent enough."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, case, select, tuple_
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session, aliased

from service.api.paging import decode_cursor, encode_cursor
from service.api.schemas.domains import DomainFilter
from service.api.schemas.fields import Filter
from service.db.engine import database_now
from service.db.tables import Domain, DomainLabels, Host, RecoveryPoint
from service.errors import CursorInvalid
from service.model.foreign_freeze import by_job, in_one_shape
from service.model.lifecycle import GOOD_POINTS
from service.records import freeze_lease
from service.records.freeze_lease import Window

STALE_PERIODS = 3
"""Publications that may be missing. After that the host counts as stale."""
UNKNOWN = "unknown"


class Inventory:
    """One read of the tables, in one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._now = database_now(session)
        hosts = session.execute(select(Host.id, Host.last_seen, Host.inventory_seconds))
        self._stale = frozenset(row.id for row in hosts if self._is_stale(row.last_seen, row.inventory_seconds))

    def domains(self, wanted: DomainFilter) -> dict[str, Any]:
        """A page of domains by name. Raises CursorInvalid."""
        shown_state = case((Domain.host_id.in_(self._stale), UNKNOWN), else_=Domain.state)
        rows = _domain_rows()
        for column, value in ((Domain.host_id, wanted.host), (shown_state, wanted.state), (Domain.name, wanted.name)):
            if value is not None:
                rows = rows.where(column == value)
        key = (Domain.name, Domain.id, Domain.host_id)
        if wanted.cursor is not None:
            rows = rows.where(tuple_(*key) > tuple_(*_cursor_key(wanted.cursor, len(key))))
        page = self._session.execute(rows.order_by(*key).limit(wanted.limit + 1)).all()
        items = self._documents(page[: wanted.limit])
        more = len(page) > wanted.limit
        return {"items": items, "next_cursor": encode_cursor(items[-1]["name"], items[-1]["id"], items[-1]["host"]) if more else None}

    def domain(self, domain_id: str, host_id: str) -> dict[str, Any]:
        row = self._session.execute(_domain_rows().where(Domain.id == domain_id, Domain.host_id == host_id)).one()
        return self._documents([row])[0]

    def hosts(self, wanted: Filter) -> dict[str, Any]:
        """A page of hosts by id. Raises CursorInvalid."""
        rows = select(Host).order_by(Host.id).limit(wanted.limit + 1)
        if wanted.cursor is not None:
            rows = rows.where(Host.id > _cursor_key(wanted.cursor, 1)[0])
        page = list(self._session.scalars(rows))
        items = [self._host(host) for host in page[: wanted.limit]]
        return {"items": items, "next_cursor": encode_cursor(items[-1]["id"]) if len(page) > wanted.limit else None}

    def _is_stale(self, last_seen: datetime, inventory_seconds: float) -> bool:
        """By the period that the host's own worker has stored. A report from the future was dated by a clock that was ahead."""
        believed = timedelta(seconds=STALE_PERIODS * inventory_seconds)
        return abs(self._now - last_seen) > believed

    def _documents(self, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
        windows = freeze_lease.open_windows(self._session, [row[0].id for row in rows]) if rows else []
        held = {(window.domain_id, window.host_id): window for window in windows}
        return [self._domain(row, held.get((row[0].id, row[0].host_id))) for row in rows]

    def _domain(self, row: Row[Any], window: Window | None) -> dict[str, Any]:
        domain: Domain = row[0]
        stale = domain.host_id in self._stale
        published = {name: domain.document.get(name) for name in ("persistent", "disks", "filesystems", "agent", "os")}
        newest = None
        if row.point_id is not None:
            newest = {"id": row.point_id, "created_at": rfc3339(row.point_created_at), "verdict": row.point_verdict}
        return {
            "id": domain.id,
            "name": domain.name,
            "host": domain.host_id,
            "state": UNKNOWN if stale else domain.state,
            "stale": stale,
            "published_at": rfc3339(domain.published_at),
            "labels": row.labels or {},
            **published,
            **_freeze(domain, window),
            "disks": published["disks"] or [],
            "newest_recovery_point": newest,
            "links": {"self": f"/api/v1/domains/{domain.id}", "jobs": f"/api/v1/jobs?domain={domain.id}"},
        }

    def _host(self, host: Host) -> dict[str, Any]:
        return {
            "id": host.id,
            "started_at": rfc3339(host.started_at),
            "last_seen": rfc3339(host.last_seen),
            "seconds_since_seen": round(max(0.0, (self._now - host.last_seen).total_seconds()), 3),
            "stale": host.id in self._stale,
            "version": host.version,
            "libvirt_uri": host.libvirt_uri,
            "libvirt_connected": host.libvirt_connected,
            "libvirt_error": host.libvirt_error,
            "versions": host.versions,
            "inventory_at": rfc3339(host.inventory_at) if host.inventory_at is not None else None,
        }


def _freeze(domain: Domain, window: Window | None) -> dict[str, Any]:
    """A freeze of a running job is known at once. Any other freeze is known from the look of the host."""
    if window is not None:
        return {"frozen": True, "frozen_since": rfc3339(window.since), "frozen_by": by_job(window.job_id)}
    seen = domain.document
    return {"frozen": seen.get("frozen"), "frozen_since": seen.get("frozen_since"), "frozen_by": in_one_shape(seen.get("frozen_by"))}


def rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _domain_rows() -> Select[*tuple[Any, ...]]:
    newest = aliased(RecoveryPoint)
    newest_id = (
        select(newest.id)
        .where(newest.domain_id == Domain.id, newest.state.in_(GOOD_POINTS))
        .order_by(newest.created_at.desc(), newest.id.desc())
        .limit(1)
        .correlate(Domain)
        .scalar_subquery()
    )
    point = aliased(RecoveryPoint)
    columns = (
        Domain,
        DomainLabels.labels.label("labels"),
        point.id.label("point_id"),
        point.created_at.label("point_created_at"),
        point.verdict.label("point_verdict"),
    )
    rows = select(*columns).select_from(Domain).outerjoin(DomainLabels, DomainLabels.domain_id == Domain.id)
    return rows.outerjoin(point, point.id == newest_id)


def _cursor_key(cursor: str, parts: int) -> tuple[str, ...]:
    key = decode_cursor(cursor)
    if len(key) != parts or any("\x00" in part for part in key):
        raise CursorInvalid(cursor=cursor)
    return key
