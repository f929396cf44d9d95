"""The job of each domain and kind that ended last, and how many before it ended alike. Written with the end of each job.

So the list of protection does not read all jobs, whatever number of them failed.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Table, case
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.tables import LastJob
from service.model.kinds import MAKE_POINT, VERIFIES_POINT
from service.model.lifecycle import JobState

KINDS = (*MAKE_POINT, VERIFIES_POINT)
"""The kinds of jobs that a promise depends on."""
_LAST = table_of(LastJob)
_INSERT: dict[str, Callable[[Table], Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def note_ended(session: Session, ended: Sequence[Any]) -> None:
    """`ended`: rows of jobs as they are after their end, with the columns `job_id`, `job_kind` and `domain_id` of their events."""
    rows = [_row_of(job) for job in ended if job.job_kind in KINDS and job.domain_id is not None]
    if not rows:
        return
    added = _INSERT[session.get_bind().dialect.name](_LAST)
    new = added.excluded
    is_alike = new.error_code == _LAST.c.error_code
    noted = added.on_conflict_do_update(
        index_elements=["domain_id", "kind"],
        set_={
            **{name: new[name] for name in ("job_id", "state", "ended_at", "error_code")},
            "in_a_row": case((is_alike, _LAST.c.in_a_row + 1), else_=1),
            "since": case((is_alike, _LAST.c.since), else_=new.since),
            "took_s": case((new.took_s.is_(None), _LAST.c.took_s), else_=new.took_s),
        },
    )
    # One statement for each: a statement cannot change a row twice, and several jobs of a domain may end together.
    for row in rows:
        session.execute(noted, row)


def _row_of(job: Any) -> dict[str, Any]:
    has_succeeded = job.state == JobState.succeeded
    return {
        "domain_id": job.domain_id,
        "kind": job.job_kind,
        "job_id": job.job_id,
        "state": job.state,
        "ended_at": job.finished_at,
        "error_code": None if has_succeeded else (job.error or {}).get("code", _NO_CODE),
        "in_a_row": 1,
        "since": job.finished_at,
        "took_s": max(0.0, (job.finished_at - job.created_at).total_seconds()) if has_succeeded else None,
    }


_NO_CODE = "internal_error"
"""The code of a job that did not succeed and has no error."""
