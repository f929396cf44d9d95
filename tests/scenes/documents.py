"""The texts of jobs and recovery points, against the rows that they tell of."""

from typing import Any

from sqlalchemy import outerjoin, select

from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Job, JobDocument, RecoveryPoint
from service.model.documents import texts_of_job, texts_of_point

_JOBS, _TEXTS, _POINTS = table_of(Job), table_of(JobDocument), table_of(RecoveryPoint)


def stale_texts(database: Database) -> list[str]:
    """The ids of the rows whose text is missing, or does not tell what a fresh one would."""
    with database.read() as session:
        jobs = session.execute(select(_JOBS, _TEXTS.c.entry, _TEXTS.c.details).select_from(outerjoin(_JOBS, _TEXTS))).all()
        points = session.execute(select(_POINTS)).all()
    stale = [row.id for row in jobs if {"entry": row.entry, "details": row.details} != texts_of_job(row)]
    return stale + [row.id for row in points if {"document": row.document} != texts_of_point(row)]


def texts(database: Database) -> dict[str, Any]:
    with database.read() as session:
        return {row.job_id: tuple(row) for row in session.execute(select(_TEXTS))}
