"""The one door to the `state` of a job: every move goes through it, and leaves an event."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Insert, Update, insert, literal, select
from sqlalchemy.orm import Session

from service.db import documents
from service.db.base import table_of
from service.db.tables import Event, Job
from service.model.lifecycle import FINAL_STATES, JobState, may_move
from service.records import events, last_jobs, slots
from service.records.events import EventKind, Move
from service.records.next_job import as_sql

_SUBJECT: events.Subject = {
    Event.job_id: Job.id,
    Event.job_kind: Job.kind,
    Event.domain_id: Job.domain_id,
    Event.domain_name: Job.domain_name,
    Event.host_id: Job.host_id,
}
_JOBS = table_of(Job)
NOT_RUNNING = {"lease_token": None, "lease_until": None, "lease_owner": None, "progress": None}


def add(
    session: Session,
    row: dict[str, Any],
    *,
    now: datetime,
    facts: dict[str, Any] | None = None,
    only_if: ColumnElement[bool] | None = None,
) -> str | None:
    """A new job in the queue, and its event. Returns the document of the job, as text.

    `only_if` is looked at in the same statement. None: that was not so.
    """
    values = {**row, "state": JobState.queued.value, "updated_at": now}
    if only_if is None:
        change = insert(_JOBS).values(values)
    else:
        columns = (literal(value, _JOBS.c[name].type) for name, value in values.items())
        change = insert(_JOBS).from_select(list(values), select(*columns).where(only_if))
    added = events.carry_out(session, change, Move(EventKind.job, None, JobState.queued, now, facts or {}), _SUBJECT)
    return next(iter(documents.write_jobs(session.connection(), added)), None)


def move(
    session: Session,
    change: Insert | Update,
    source: JobState | None,
    to: JobState,
    *,
    now: datetime,
    facts: dict[str, Any] | None = None,
) -> list[str]:
    """Make the change, with which jobs go from `source` to `to`, and record its events. Returns the ids of the moved jobs.

    An insert comes from None. An update reaches only jobs that are in `source`. A job that no longer runs has no lease and no slot.
    Raises ValueError for a move that the table of moves does not have.
    """
    if not may_move(source, to) or isinstance(change, Insert) is not (source is None):
        raise ValueError(f"a job cannot go from {source} to {to}")
    values: dict[str, Any] = {"state": to.value, "updated_at": now}
    if to in FINAL_STATES:
        values["finished_at"] = now
    if source is JobState.running:
        values |= NOT_RUNNING
    if isinstance(change, Update) and source is not None:
        change = change.where(Job.state == as_sql(source))
    moved = events.carry_out(session, change.values(values), Move(EventKind.job, source, to, now, facts or {}), _SUBJECT)
    documents.write_jobs(session.connection(), moved)
    if to in FINAL_STATES:
        last_jobs.note_ended(session, moved)
    job_ids = [job.job_id for job in moved]
    if source is JobState.running:
        slots.free(session, job_ids)
    return job_ids


def facts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says of the columns that are written with the move."""
    error = values.get("error")
    facts = {"verdict": values.get("verdict"), "error": error["code"] if error else None}
    return {name: value for name, value in facts.items() if value is not None}
