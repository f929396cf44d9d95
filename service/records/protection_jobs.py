"""What the jobs and the runs say of each domain: what ended last, how many ended alike, what runs now, and the newest run."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from service.db.tables import Domain, Job, LastJob, ScheduleRun
from service.model.kinds import MAKE_POINT
from service.model.lifecycle import FINAL_STATES, JobState
from service.model.protection_facts import JobFacts, Lowered, RunFacts
from service.model.reasons import Effect
from service.model.schedule import Outcome, Reason
from service.records.last_jobs import KINDS
from service.records.protection_domains import AnyRow

_UNFINISHED = tuple(state.value for state in JobState if state not in FINAL_STATES)


@dataclass
class Work:
    """All by the id of the domain; newest first. `takes_s`: how long the newest job took that made a point."""

    jobs: Mapping[str, Sequence[JobFacts]]
    takes_s: Mapping[str, float]
    runs: Mapping[str, Sequence[AnyRow]]

    def runs_of(self, domain_id: str, policy_id: str | None) -> tuple[RunFacts, ...]:
        """The runs of this policy. An earlier policy of the domain has nothing to do with its promise."""
        rows = self.runs.get(domain_id)
        return tuple(_run(row) for row in rows if row.policy_id == policy_id) if rows is not None else ()


def read(session: Session, domain_id: str | None, unlimited: Collection[str]) -> Work:
    """`unlimited`: the ids of the policies that promise nothing of the age of points. Of their domains it counts that a run was queued."""
    connection = session.connection()
    jobs = _ended(connection, domain_id)
    for row in connection.execute(_unfinished(domain_id)).all():
        jobs[row.domain_id].append(JobFacts(row.id, row.kind, row.state, row.started_at or row.created_at))
    for each in jobs.values():
        each.sort(key=lambda job: job.at, reverse=True)
    return Work(jobs, _takes_s(connection, domain_id), _newest_runs(connection, domain_id, unlimited))


# --- jobs -----------------------------------------------------------------------------------------


def _ended(connection: Connection, domain_id: str | None) -> defaultdict[str, list[JobFacts]]:
    """The last job of each kind, for each domain of which one of them did not succeed. A failure may be older than a success."""
    failed = aliased(LastJob)
    columns = (LastJob.domain_id, LastJob.kind, LastJob.job_id, LastJob.state, LastJob.ended_at, LastJob.error_code)
    has_failed = exists().where(failed.domain_id == LastJob.domain_id, failed.error_code.is_not(None))
    rows = (
        select(*columns, LastJob.in_a_row, LastJob.since, Job.error, Job.verdict_reasons)
        .outerjoin(Job, and_(Job.id == LastJob.job_id, LastJob.error_code.is_not(None)))
        .where(LastJob.kind.in_(KINDS), has_failed)
    )
    jobs: defaultdict[str, list[JobFacts]] = defaultdict(list)
    for of_domain, kind, job_id, state, at, code, in_a_row, since, error, reasons in connection.execute(
        _of(rows, LastJob.domain_id, domain_id)
    ).all():
        # The job may have been removed because of its age. Its code is still known.
        known = error or ({"code": code} if code is not None else None)
        jobs[of_domain].append(JobFacts(job_id, kind, state, at, known, in_a_row, since, first_that_lowers(reasons)))
    return jobs


def _takes_s(connection: Connection, domain_id: str | None) -> dict[str, float]:
    took = select(LastJob.domain_id, func.max(LastJob.took_s)).where(LastJob.kind.in_(MAKE_POINT), LastJob.took_s.is_not(None))
    return {row[0]: row[1] for row in connection.execute(_of(took.group_by(LastJob.domain_id), LastJob.domain_id, domain_id)).all()}


def first_that_lowers(reasons: Sequence[Mapping[str, Any]] | None) -> Lowered | None:
    """`reasons`: of a verdict, as the row of the job has them."""
    lowering = (reason for reason in reasons or () if reason["effect"] == Effect.lowers)
    return next((Lowered(reason["code"], reason["detail"]) for reason in lowering), None)


def _unfinished(domain_id: str | None) -> Select[*tuple[Any, ...]]:
    columns = (Job.id, Job.kind, Job.state, Job.domain_id, Job.started_at, Job.created_at)
    rows = select(*columns).where(Job.state.in_(_UNFINISHED), Job.kind.in_(MAKE_POINT))
    return _of(rows, Job.domain_id, domain_id)


# --- runs -----------------------------------------------------------------------------------------


def _newest_runs(connection: Connection, domain_id: str | None, unlimited: Collection[str]) -> dict[str, list[AnyRow]]:
    """Runs that made no job, of domains that hosts publish; and runs that made one, of the policies `unlimited`.

    Several tracks may have been due at the same instant. A run that made no job comes first, as it explains more.
    """
    run, other = aliased(ScheduleRun), aliased(ScheduleRun)
    newest = select(func.max(other.due_at, type_=other.due_at.type)).where(other.domain_id == Domain.id).scalar_subquery()
    columns = (run.domain_id, run.policy_id, run.track, run.due_at, run.outcome, run.reason, run.job_id, run.facts)
    rows = select(*columns).where(tuple_(run.domain_id, run.due_at).in_(_of(select(Domain.id, newest), Domain.id, domain_id)))
    made_no_job = run.outcome != Outcome.queued.value
    rows = rows.where(or_(made_no_job, run.policy_id.in_(unlimited)) if unlimited else made_no_job)
    runs: defaultdict[str, list[AnyRow]] = defaultdict(list)
    for row in connection.execute(rows).all():
        runs[row.domain_id].append(row)
    for each in runs.values():
        each.sort(key=lambda row: row.outcome == Outcome.queued)
    return runs


def _run(row: AnyRow) -> RunFacts:
    error = row.facts.get("error") if row.reason == Reason.refused else None
    return RunFacts(row.track, row.due_at, row.outcome, row.reason, row.job_id, error)


def _of(rows: Select[*tuple[Any, ...]], column: Any, domain_id: str | None) -> Select[*tuple[Any, ...]]:
    return rows if domain_id is None else rows.where(column == domain_id)
