"""Copies of repositories as the API answers them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from service.api.paging import decode_cursor, encode_cursor
from service.api.schemas.copies import CopyPointFilter
from service.clock import rfc3339
from service.db.tables import CopiedPoint, Copy, CopyProof
from service.errors import CursorInvalid
from service.model.copied import CopiedState
from service.model.immutability import Immutability
from service.records import copies

MAX_PROOFS = 100
"""Proofs that one answer shows, the newest ones: eight years of them."""


def documents_of(session: Session, rows: Sequence[Copy]) -> list[dict[str, Any]]:
    counts = copies.counts_of(session, [copy.id for copy in rows])
    return [_document(copy, counts[copy.id]) for copy in rows]


def document_of(session: Session, copy: Copy) -> dict[str, Any]:
    return documents_of(session, [copy])[0]


def proofs_of(session: Session, copy: Copy) -> list[dict[str, Any]]:
    return [_proof(proof) for proof in copies.proofs_of(session, copy.id, MAX_PROOFS)]


def page_of_points(session: Session, copy: Copy, wanted: CopyPointFilter) -> dict[str, Any]:
    """Newest first. Raises CursorInvalid."""
    key = (CopiedPoint.point_in_time_at, CopiedPoint.point_id)
    rows = select(CopiedPoint).where(CopiedPoint.copy_id == copy.id).order_by(key[0].desc(), key[1].desc())
    if wanted.cursor is not None:
        rows = rows.where(tuple_(*key) < _key_in(wanted.cursor))
    page = list(session.scalars(rows.limit(wanted.limit + 1)))
    shown = page[: wanted.limit]
    last = shown[-1] if len(page) > wanted.limit else None
    next_cursor = encode_cursor(rfc3339(last.point_in_time_at), last.point_id) if last is not None else None
    return {"items": [_point(copy, row) for row in shown], "next_cursor": next_cursor}


def _key_in(cursor: str) -> tuple[datetime, str]:
    key = decode_cursor(cursor)
    if len(key) != 2 or "\x00" in key[1]:
        raise CursorInvalid(cursor=cursor)
    try:
        return datetime.fromisoformat(key[0]), key[1]
    except ValueError as error:
        raise CursorInvalid(cursor=cursor) from error


def _document(copy: Copy, counts: dict[str, int]) -> dict[str, Any]:
    itself = f"/api/v1/repositories/{copy.repository_id}/copies/{copy.id}"
    return {
        "id": copy.id,
        "name": copy.name,
        "repository": copy.repository_id,
        "target": copy.target,
        "key": copy.key_reference,
        "retain_days": copy.retain_days,
        "lock_mode": copy.lock_mode,
        "rate_limit_bytes": copy.rate_limit_bytes,
        "retention": copy.retention,
        "created_at": rfc3339(copy.created_at),
        "opened_at": _time(copy.opened_at),
        "immutability": copy.immutability,
        "proven_at": _time(copy.proven_at),
        "proof_due_at": _time(copy.proof_due_at),
        "answers": copy.answers,
        "points": counts,
        "links": {"self": itself, "points": f"{itself}/points", "proofs": f"{itself}/proofs"},
    }


def _point(copy: Copy, row: CopiedPoint) -> dict[str, Any]:
    is_kept = copy.immutability == Immutability.immutable and row.state == CopiedState.whole
    return {
        "recovery_point": row.point_id,
        "state": row.state,
        "folder": row.folder,
        "domain": {"id": row.domain_id, "name": row.domain_name},
        "point_in_time_at": rfc3339(row.point_in_time_at),
        "verdict": row.verdict,
        "parents": row.parents,
        "manifest_digest": row.manifest_digest,
        "size_bytes": row.size_bytes,
        "begun_at": rfc3339(row.begun_at),
        "sent_at": _time(row.sent_at),
        "checked_at": _time(row.checked_at),
        "checked_by": row.checked_by,
        "locked_until": _time(row.locked_until),
        "retained_until": _time(row.locked_until) if is_kept else None,
        "job_id": row.job_id,
    }


def _proof(proof: CopyProof) -> dict[str, Any]:
    return {
        "at": rfc3339(proof.at),
        "job_id": proof.job_id,
        "immutability": proof.immutability,
        "lock_mode": proof.lock_mode,
        "answers": proof.answers,
        "why_not": proof.why_not,
    }


def _time(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None
