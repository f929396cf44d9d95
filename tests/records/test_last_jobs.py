"""The last job of each domain and kind, and how many before it ended alike."""

from datetime import timedelta
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import LastJob
from service.model.lifecycle import JobState
from service.records import queue
from service.records.queue import NewJob
from tests.scenes.queue import add, allow, claimed

DB1 = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


@pytest.fixture
def jobs(database: Database) -> Database:
    allow(database, "host:hv1:quick", 4)
    return database


def ends(database: Database, state: JobState, code: str | None = None, kind: str = "snapshot") -> str:
    job_id = add(database, NewJob(kind, DB1, "db1", "hv1", {"kind": kind}, {}))
    claim = claimed(database)
    values: dict[str, Any] = {"error": {"code": code}} if code is not None else {}
    with database.write() as session:
        queue.finish(session, claim.job_id, claim.lease_token, state, values)
    return job_id


def last(database: Database, kind: str = "snapshot") -> LastJob:
    with database.read() as session:
        return session.get_one(LastJob, (DB1, kind))


def test_failures_with_the_same_code_are_counted(jobs: Database) -> None:
    ends(jobs, JobState.failed, "agent_lost")
    first = last(jobs)
    newest = [ends(jobs, JobState.failed, "agent_lost") for _ in range(2)][-1]
    found = last(jobs)
    assert (found.job_id, found.error_code, found.in_a_row, found.since) == (newest, "agent_lost", 3, first.ended_at)
    assert found.ended_at > first.ended_at


def test_another_code_and_a_success_begin_anew(jobs: Database) -> None:
    for _ in range(2):
        ends(jobs, JobState.failed, "agent_lost")
    ends(jobs, JobState.failed, "domain_paused")
    assert (last(jobs).in_a_row, last(jobs).since) == (1, last(jobs).ended_at)
    ends(jobs, JobState.succeeded)
    ends(jobs, JobState.failed, "domain_paused")
    assert last(jobs).in_a_row == 1


def test_how_long_a_success_took_outlasts_failures(jobs: Database) -> None:
    ends(jobs, JobState.succeeded)
    took_s = last(jobs).took_s
    assert took_s is not None and 0 < took_s < timedelta(minutes=5).total_seconds()
    ends(jobs, JobState.failed, "agent_lost")
    assert last(jobs).took_s == took_s


def test_a_cancelled_job_has_not_succeeded(jobs: Database) -> None:
    job_id = add(jobs, NewJob("snapshot", DB1, "db1", "hv1", {"kind": "snapshot"}, {}))
    with jobs.write() as session:
        queue.request_cancel(session, job_id)
    assert (last(jobs).state, last(jobs).error_code) == ("cancelled", "job_cancelled")


def test_jobs_on_which_no_promise_depends_are_not_noted(jobs: Database) -> None:
    ends(jobs, JobState.succeeded, kind="preflight")
    with jobs.read() as session:
        assert session.query(LastJob).count() == 0
