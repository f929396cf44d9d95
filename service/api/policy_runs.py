"""What became of the runs of a policy, as the API answers it."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, tuple_
from sqlalchemy.orm import Session

from service.api.paging import decode_cursor, encode_cursor
from service.api.schemas.policy_runs import RunFilter
from service.clock import rfc3339
from service.db.tables import ScheduleRun
from service.errors import CursorInvalid, PolicyUnknown
from service.records import policies, schedules


def page_of_runs(session: Session, policy: str, wanted: RunFilter) -> dict[str, Any]:
    """The newest due instant first. Raises PolicyUnknown, CursorInvalid."""
    key = ScheduleRun.due_at, ScheduleRun.schedule_id
    rows = select(ScheduleRun).where(ScheduleRun.policy_id == _id_of(session, policy))
    if wanted.domain is not None:
        rows = rows.where(or_(ScheduleRun.domain_id == wanted.domain.lower(), ScheduleRun.domain_name == wanted.domain))
    for column, value in ((ScheduleRun.track, wanted.track), (ScheduleRun.outcome, wanted.outcome), (ScheduleRun.reason, wanted.reason)):
        if value is not None:
            rows = rows.where(column == value)
    if wanted.since is not None:
        rows = rows.where(ScheduleRun.due_at >= wanted.since)
    if wanted.until is not None:
        rows = rows.where(ScheduleRun.due_at < wanted.until)
    if wanted.cursor is not None:
        rows = rows.where(tuple_(*key) < tuple_(*_key_in(wanted.cursor)))
    page = list(session.scalars(rows.order_by(*(column.desc() for column in key)).limit(wanted.limit + 1)))
    shown = page[: wanted.limit]
    cursor = encode_cursor(rfc3339(shown[-1].due_at), shown[-1].schedule_id) if len(page) > wanted.limit else None
    return {"items": [_document(run) for run in shown], "next_cursor": cursor}


def _id_of(session: Session, policy: str) -> str:
    """Also of a policy that was removed, as long as runs of it are on record. Raises PolicyUnknown."""
    try:
        return policies.get(session, policy).id
    except PolicyUnknown:
        removed = schedules.removed_policy(session, policy)
        if removed is None:
            raise
        return removed


def _document(run: ScheduleRun) -> dict[str, Any]:
    return {
        "due_at": rfc3339(run.due_at),
        "track": run.track,
        "domain": {"id": run.domain_id, "name": run.domain_name},
        "outcome": run.outcome,
        "reason": run.reason,
        "facts": run.facts,
        "job_id": run.job_id,
        "decided_at": rfc3339(run.decided_at),
    }


def _key_in(cursor: str) -> tuple[datetime, str]:
    try:
        due_at, schedule_id = decode_cursor(cursor)
        return datetime.fromisoformat(due_at).astimezone(UTC), str(UUID(schedule_id))
    except (ValueError, OverflowError) as error:
        raise CursorInvalid(cursor=cursor) from error
