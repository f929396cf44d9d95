"""Repositories as the API answers them."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.api.paging import decode_cursor, encode_cursor
from service.api.schemas.repositories import RepositoryFilter
from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import Host, RecoveryPoint, Repository
from service.errors import CursorInvalid, HostNotNamed, HostUnknown

STALE_AFTER = timedelta(minutes=5)
"""A look that is older says nothing of now."""


def page_of_repositories(session: Session, wanted: RepositoryFilter) -> dict[str, Any]:
    """By name. Raises CursorInvalid."""
    rows = select(Repository).order_by(Repository.name).limit(wanted.limit + 1)
    if wanted.cursor is not None:
        rows = rows.where(Repository.name > _name_in(wanted.cursor))
    page = list(session.scalars(rows))
    shown = page[: wanted.limit]
    counts, now = _points_in(session, [repository.id for repository in shown]), database_now(session)
    items = [_document(repository, counts.get(repository.id, 0), now) for repository in shown]
    return {"items": items, "next_cursor": encode_cursor(items[-1]["name"]) if len(page) > wanted.limit else None}


def document_of(session: Session, repository: Repository) -> dict[str, Any]:
    count = _points_in(session, [repository.id]).get(repository.id, 0)
    return _document(repository, count, database_now(session))


def repository_host(session: Session, named: str | None) -> str:
    """Raises HostUnknown, HostNotNamed."""
    known = list(session.scalars(select(Host.id).order_by(Host.id)))
    if named is None and len(known) == 1:
        return known[0]
    if named is None:
        raise HostNotNamed(hosts=", ".join(known) or "none")
    if named not in known:
        raise HostUnknown(host=named)
    return named


def _name_in(cursor: str) -> str:
    key = decode_cursor(cursor)
    if len(key) != 1 or "\x00" in key[0]:
        raise CursorInvalid(cursor=cursor)
    return key[0]


def _points_in(session: Session, ids: list[str]) -> dict[str | None, int]:
    counted = select(RecoveryPoint.repository_id, func.count()).where(RecoveryPoint.repository_id.in_(ids))
    return {row[0]: row[1] for row in session.execute(counted.group_by(RecoveryPoint.repository_id))}


def _document(repository: Repository, points: int, now: datetime) -> dict[str, Any]:
    looked_at = repository.looked_at
    return {
        "id": repository.id,
        "name": repository.name,
        "path": repository.path,
        "host": repository.host_id,
        "key": repository.key_reference,
        "max_transfers": repository.max_transfers,
        "reserve_bytes": repository.reserve_bytes,
        "created_at": rfc3339(repository.created_at),
        "state": repository.state,
        "stale": looked_at is None or abs(now - looked_at) > STALE_AFTER,
        "error": repository.state_error,
        "looked_at": _time(looked_at),
        "free_bytes": repository.free_bytes,
        "total_bytes": repository.total_bytes,
        "format_version": repository.format_version,
        "points": points,
        "check_asked_at": _time(repository.check_asked_at),
        "import_asked_at": _time(repository.import_asked_at),
        "imported_at": _time(repository.imported_at),
        "import_result": repository.import_result,
        "verification": repository.verification,
        "links": {
            "self": f"/api/v1/repositories/{repository.id}",
            "recovery_points": f"/api/v1/recovery-points?repository={repository.id}",
            "verification": f"/api/v1/repositories/{repository.id}/verification",
        },
    }


def _time(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None
