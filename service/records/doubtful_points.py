"""Points that were being published when their repository went away: their jobs ended without knowing whether they are there.

Callers commit.
"""

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.db import documents
from service.db.base import table_of
from service.db.tables import Job
from service.model.kinds import SEALS_POINT
from service.model.lifecycle import JobState

_JOBS = table_of(Job)


@dataclass(frozen=True)
class DoubtfulPoint:
    """`partial`: the unfinished folder, from which nothing may be published any more."""

    job_id: str
    point_id: str
    partial: str


def of_repository(session: Session, repository_id: str) -> list[DoubtfulPoint]:
    in_doubt = select(Job.id, Job.result).where(
        Job.repository_id == repository_id,
        Job.kind == SEALS_POINT,
        Job.state == JobState.failed.value,
        Job.result[(SEALS_POINT, "may_be_sealed")].as_boolean().is_(True),
    )
    return [
        DoubtfulPoint(row.id, row.result[SEALS_POINT]["point"], row.result[SEALS_POINT]["partial"]) for row in session.execute(in_doubt)
    ]


def settle(session: Session, doubtful: DoubtfulPoint, *, is_sealed: bool) -> None:
    """The job has ended and stays so: its result says what became of its point."""
    job = session.get_one(Job, doubtful.job_id, populate_existing=True)
    backup = {name: value for name, value in (job.result or {})[SEALS_POINT].items() if name != "may_be_sealed"}
    result = {**(job.result or {}), SEALS_POINT: {**backup, "was_sealed": is_sealed}}
    documents.change_jobs(session, update(_JOBS).where(_JOBS.c.id == doubtful.job_id).values(result=result))
