"""The lists of jobs and recovery points: which index each filter walks, and nothing that grows with the table."""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, bindparam, literal_column, or_, select, tuple_, union_all
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from service.api.paging import decode_time_cursor, statement_of_page
from service.api.schemas.jobs import JobFilter
from service.api.schemas.recovery_points import RecoveryPointFilter
from service.db.reader import Statement
from service.db.tables import Job, JobDocument, JobDomain, JobLabel, RecoveryPoint, Repository

Value = str | int | datetime
Rows = Select[*tuple[Any, ...]]
JOB_COLUMNS = {
    "state": Job.state,
    "kind": Job.kind,
    "domain_id": Job.domain_id,
    "domain_name": Job.domain_name,
    "host": Job.host_id,
    "verdict": Job.verdict,
    "vss_outcome": Job.vss_outcome,
    "writer_failed": Job.writer_failed,
}
OF_POINTS = {"domain_id": JobDomain.domain_id, "domain_name": JobDomain.domain_name}
_ENTRIES = select(JobDocument.entry)
POINT_COLUMNS = {
    "domain_id": RecoveryPoint.domain_id,
    "domain_name": RecoveryPoint.domain_name,
    "host": RecoveryPoint.host_id,
    "verdict": RecoveryPoint.verdict,
    "point_state": RecoveryPoint.state,
}
_ASKED = bindparam("repository", type_=Repository.name.type)
_REPOSITORY = (
    select(Repository.id)
    .where(or_(Repository.id == _ASKED, Repository.registered_id == _ASKED, Repository.name == _ASKED))
    .order_by(Repository.name == _ASKED)
    .limit(1)
    .scalar_subquery()
)


def page_of_jobs(wanted: JobFilter) -> tuple[Statement, dict[str, Value]]:
    """The statement, from a small set that is compiled once each, and its parameters. Raises CursorInvalid."""
    parameters = _parameters(wanted, _own_filters(wanted))
    labels = list(dict.fromkeys(wanted.label))
    for n, label in enumerate(labels):
        parameters[f"label_key_{n}"], _, parameters[f"label_value_{n}"] = label.partition(":")
    return job_page_statement(frozenset(parameters), len(labels), wanted.limit), parameters


def _own_filters(wanted: JobFilter) -> dict[str, Value | None]:
    return {"state": wanted.state, "kind": wanted.kind, "vss_outcome": wanted.vss_outcome, "writer_failed": wanted.writer_failed}


def page_of_recovery_points(wanted: RecoveryPointFilter) -> tuple[Statement, dict[str, Value]]:
    """Like `page_of_jobs`. Raises CursorInvalid."""
    parameters = _parameters(wanted, {"repository": wanted.repository, "point_state": wanted.state})
    return recovery_point_page_statement(frozenset(parameters), wanted.limit), parameters


@lru_cache(maxsize=512)
def job_page_statement(names: frozenset[str], labels: int, limit: int) -> Statement:
    if not labels:
        rows = _narrowed(
            _ENTRIES.select_from(Job).join(JobDocument, JobDocument.job_id == Job.id), names, JOB_COLUMNS, Job.created_at, Job.id
        )
        return statement_of_page(_with_those_about_points(rows, names, limit) if names & OF_POINTS.keys() else rows, limit)
    # The first label leads: its rows stand in the order of the list, so the page is a range of them.
    lead = aliased(JobLabel)
    rows = _ENTRIES.select_from(lead).join(JobDocument, JobDocument.job_id == lead.job_id).where(*_is_label(lead, 0))
    if names & JOB_COLUMNS.keys():
        rows = rows.join(Job, Job.id == lead.job_id)
    for name in sorted(names & OF_POINTS.keys()):
        is_named = and_(JobDomain.job_id == lead.job_id, OF_POINTS[name] == bindparam(name))
        rows = rows.where(or_(JOB_COLUMNS[name] == bindparam(name), select(JobDomain.job_id).where(is_named).exists()))
    for n in range(1, labels):
        also = aliased(JobLabel)
        same_job = and_(also.created_at == lead.created_at, also.job_id == lead.job_id)
        rows = rows.where(select(also.job_id).where(*_is_label(also, n), same_job).exists())
    return statement_of_page(_narrowed(rows, names - OF_POINTS.keys(), JOB_COLUMNS, lead.created_at, lead.job_id), limit)


def _with_those_about_points(about_domain: Rows, names: frozenset[str], limit: int) -> Rows:
    """Jobs about a domain, and jobs that name points of it. No job is both. A page of each is all that a page of both can need."""
    rows = _ENTRIES.select_from(JobDomain).join(JobDocument, JobDocument.job_id == JobDomain.job_id).join(Job, Job.id == JobDomain.job_id)
    about_points = _narrowed(rows, names, JOB_COLUMNS | OF_POINTS, JobDomain.created_at, JobDomain.job_id)
    pages = (each.limit(literal_column(str(limit + 1))).subquery() for each in (about_domain, about_points))
    both = union_all(*(select(*page.c) for page in pages)).subquery().c
    return select(*both).order_by(both.listed_at.desc(), both.listed_id.desc())


@lru_cache(maxsize=64)
def recovery_point_page_statement(names: frozenset[str], limit: int) -> Statement:
    rows = select(RecoveryPoint.document).select_from(RecoveryPoint)
    if "repository" in names:
        rows = rows.where(RecoveryPoint.repository_id == _REPOSITORY)
    return statement_of_page(_narrowed(rows, names, POINT_COLUMNS, RecoveryPoint.created_at, RecoveryPoint.id), limit)


def _parameters(wanted: JobFilter | RecoveryPointFilter, further: dict[str, Value | None]) -> dict[str, Value]:
    given: dict[str, Value | None] = {
        **further,
        "host": wanted.host,
        "verdict": wanted.verdict,
        "since": wanted.since,
        "until": wanted.until,
    }
    if wanted.domain is not None:
        given |= _domain(wanted.domain)
    if wanted.cursor is not None:
        after_created_at, after_id = decode_time_cursor(wanted.cursor)
        given |= {"after_created_at": after_created_at, "after_id": after_id}
        # Two upper bounds, of which an index walks one: the lower one says it all.
        redundant = ("until",) if wanted.until is None or after_created_at < wanted.until else ("after_created_at", "after_id")
        given |= dict.fromkeys(redundant)
    return {name: value for name, value in given.items() if value is not None}


def _domain(name_or_id: str) -> dict[str, Value | None]:
    try:
        return {"domain_id": str(UUID(name_or_id))}
    except ValueError:
        return {"domain_name": name_or_id}


def _narrowed(rows: Rows, names: Iterable[str], columns: dict[str, Any], created_at: Any, identifier: Any) -> Rows:
    conditions: list[ColumnElement[bool]] = [columns[name] == bindparam(name) for name in sorted(names) if name in columns]
    if "since" in names:
        conditions.append(created_at >= bindparam("since"))
    if "until" in names:
        conditions.append(created_at < bindparam("until"))
    if "after_id" in names:
        conditions.append(
            tuple_(created_at, identifier) < tuple_(bindparam("after_created_at", type_=created_at.type), bindparam("after_id"))
        )
    # The order once more, as columns: no database promises to keep that of a subquery when it joins the rows.
    keyed = rows.add_columns(created_at.label("listed_at"), identifier.label("listed_id"))
    return keyed.where(*conditions).order_by(created_at.desc(), identifier.desc())


def _is_label(label: Any, n: int) -> list[ColumnElement[bool]]:
    return [label.key == bindparam(f"label_key_{n}"), label.value == bindparam(f"label_value_{n}")]
