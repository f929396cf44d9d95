"""What is too old is removed, and nothing else: on both databases."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.orm import Session

from service.config import Settings
from service.db import tokens
from service.db.engine import Database, database_now, open_engine
from service.db.tables import (
    Domain,
    Event,
    Gate,
    GuestMemory,
    Host,
    Job,
    JobLabel,
    LastJob,
    PrunedJobs,
    RawText,
    RecoveryPoint,
    RepositorySample,
    ScheduleRun,
    Slot,
    Token,
)
from service.records import ageing, queue
from service.scheduler.pruning import Pace, Pruning, due
from tests.api.world import DB1, add_domain, add_host, add_job, add_recovery_point
from tests.scenes.aged import add_ended, add_gate, add_memory, add_texts, ago, count_of, job_ids, rows_of
from tests.scenes.orders import a_snapshot
from tests.scenes.promised import add_repository

YEAR, MONTHS = 366, 91
"""In days, both just too old."""


def prune(database: Database, **settings: Any) -> dict[str, int]:
    with database.read() as session:
        all_due = due(Settings(state_dir=Path("/nowhere"), **settings), database_now(session))
    return Pruning(database, threading.Event()).run(all_due)


# --- jobs -----------------------------------------------------------------------------------------


def test_a_job_goes_with_all_that_belongs_to_it_when_it_ended_more_than_a_year_ago(database: Database) -> None:
    with database.write() as session:
        old = add_ended(session, YEAR, labels={"plan": "nightly"}, token_id="t", idempotency_key="k", idempotency_digest="d")
        add_texts(session, old, YEAR)
        add_gate(session, old)
        young = add_ended(session, 364, labels={"plan": "nightly"})
    assert prune(database)["jobs"] == 1
    assert job_ids(database) == {young}
    with database.read() as session:
        assert list(session.scalars(select(JobLabel.job_id))) == [young]
    assert (count_of(database, RawText), count_of(database, Gate)) == (0, 0)
    again = a_snapshot(token="t", key="k", digest="another")
    with database.write() as session:
        assert queue.enqueue(session, again).created


@pytest.mark.parametrize("state", ["queued", "running", "interrupted"])
def test_a_job_that_has_not_ended_stays_however_old_it_is(database: Database, state: str) -> None:
    with database.write() as session:
        job_id = add_job(session, ago(2 * YEAR), state=state)
        add_gate(session, job_id)
    prune(database)
    assert (job_ids(database), count_of(database, Gate)) == ({job_id}, 1)


def test_a_job_counts_from_its_end_and_not_from_its_creation(database: Database) -> None:
    with database.write() as session:
        late = add_job(session, ago(2 * YEAR), finished_at=ago(1))
    prune(database)
    assert job_ids(database) == {late}


def test_a_recovery_point_and_its_job_stay_as_they_are(database: Database) -> None:
    with database.write() as session:
        kept = add_ended(session, 3 * YEAR, labels={"plan": "nightly"})
        add_recovery_point(session, kept, ago(3 * YEAR))
        add_ended(session, 3 * YEAR)
    before = [rows_of(database, table) for table in (RecoveryPoint, JobLabel)]
    prune(database)
    assert [rows_of(database, table) for table in (RecoveryPoint, JobLabel)] == before
    assert job_ids(database) == {kept}


def test_a_job_that_was_forgotten_with_its_host_waits_for_the_host(database: Database) -> None:
    with database.write() as session:
        job_id = add_ended(session, YEAR, state="failed", forgotten_at=ago(YEAR))
    assert prune(database)["jobs"] == 0
    with database.write() as session:
        session.execute(update(Job).values(forgotten_at=None))
    prune(database)
    assert job_id not in job_ids(database)


def test_old_jobs_are_found_among_many_that_stay(database: Database) -> None:
    """More than one page of those that have a point, before, between and after."""
    with database.write() as session:
        for n in range(3 * ageing.PAGE):
            job_id = add_ended(session, 2 * YEAR - n * 0.1)
            if n % 100:
                add_recovery_point(session, job_id)
    assert prune(database)["jobs"] == 6
    assert count_of(database, Job) == count_of(database, RecoveryPoint) == 3 * ageing.PAGE - 6


def test_nothing_goes_where_everything_is_kept_for_ever(database: Database) -> None:
    with database.write() as session:
        job_id = add_ended(session, 99 * 365)
        add_texts(session, job_id, 99 * 365)
        add_memory(session, 99 * 365)
    for_ever = {name: 0 for name in Settings.model_fields if name.startswith("keep_")}
    # The free space of repositories is not a record of what was done.
    assert prune(database, **for_ever) == {"repository_samples": 0}
    assert (count_of(database, Job), count_of(database, GuestMemory)) == (1, 1)


# --- raw texts, gates -----------------------------------------------------------------------------


def test_raw_texts_go_after_90_days_and_their_rows_say_when(database: Database) -> None:
    with database.write() as session:
        old, young = add_ended(session, MONTHS), add_ended(session, 89)
        add_texts(session, old, MONTHS)
        add_texts(session, young, 89)
        began = database_now(session)
    assert prune(database)["raw_texts"] == 1
    with database.read() as session:
        aged, kept = session.get_one(RawText, (old, "windows")), session.get_one(RawText, (young, "windows"))
    assert aged.aged_out_at is not None
    assert began <= aged.aged_out_at
    assert list(aged.document) == ["aged_out_at"]
    assert (kept.aged_out_at, "writers_after" in kept.document) == (None, True)
    assert prune(database)["raw_texts"] == 0


def test_raw_texts_of_the_job_of_a_point_age_like_any_others(database: Database) -> None:
    with database.write() as session:
        job_id = add_ended(session, YEAR)
        add_recovery_point(session, job_id)
        add_texts(session, job_id, YEAR)
    assert {name: count for name, count in prune(database).items() if count} == {"raw_texts": 1}


def test_a_gate_goes_a_month_after_its_job_has_ended(database: Database) -> None:
    with database.write() as session:
        old, young = (add_ended(session, days, kind="quiesce") for days in (31, 29))
        add_gate(session, old)
        add_gate(session, young)
    assert prune(database)["gates"] == 1
    with database.read() as session:
        assert list(session.scalars(select(Gate.job_id))) == [young]
    assert job_ids(database) == {old, young}


# --- events ---------------------------------------------------------------------------------------


def test_events_go_after_a_year_and_their_ids_never_come_again(database: Database) -> None:
    with database.write() as session:
        for days in [YEAR] * (ageing.PAGE + 5) + [364]:
            session.add(Event(at=ago(days), kind="job", moved_to="queued", facts={}))
            session.flush()
        last = session.scalar(select(func.max(Event.id))) or 0
    assert prune(database)["events"] == ageing.PAGE + 5
    with database.write() as session:
        assert list(session.scalars(select(Event.id))) == [last]
        session.execute(update(Event).values(at=ago(YEAR)))
    prune(database)
    with database.write() as session:
        new = Event(at=ago(0), kind="job", moved_to="queued", facts={})
        session.add(new)
        session.flush()
        assert new.id > last


# --- tokens, hosts, memories ----------------------------------------------------------------------


def _add_token(session: Session, created: float, **columns: Any) -> str:
    new = tokens.create(session, "any")
    session.execute(update(Token).where(Token.id == new.id).values(created_at=ago(created), **columns))
    return new.id


def _tokens(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Token.id)))


def test_tokens_that_were_revoked_or_have_expired_long_ago_go(database: Database) -> None:
    with database.write() as session:
        valid = _add_token(session, 5 * YEAR)
        lately = _add_token(session, YEAR, revoked_at=ago(89))
        _add_token(session, YEAR, revoked_at=ago(MONTHS))
        _add_token(session, YEAR, expires_at=ago(MONTHS))
        newest = _add_token(session, 1, expires_at=ago(-1))
    assert prune(database)["tokens"] == 2
    assert _tokens(database) == {valid, lately, newest}


def test_the_last_token_stays_so_that_no_start_makes_another(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        _add_token(session, 2 * YEAR, revoked_at=ago(YEAR))
        last = _add_token(session, YEAR, revoked_at=ago(YEAR))
    prune(database)
    assert _tokens(database) == {last}
    with database.write() as session:
        assert tokens.create_first(session, tmp_path / "token") is None


def test_a_host_goes_when_it_was_silent_for_long_and_nothing_on_record_is_of_it(database: Database) -> None:
    silent = timedelta(days=MONTHS)
    with database.write() as session:
        for host in ("gone", "with-job", "with-point"):
            add_host(session, host, silent)
            add_domain(session, f"on-{host}", host_id=host)
        queue.ensure_slots(session, "host:gone:quick", 2)
        add_host(session, "alive")
        add_host(session, "away", timedelta(days=89))
        add_ended(session, 10, host_id="with-job")
        add_recovery_point(session, add_ended(session, 10, host_id="elsewhere"), host_id="with-point")
    assert prune(database)["hosts"] == 1
    with database.read() as session:
        assert set(session.scalars(select(Host.id))) == {"with-job", "with-point", "alive", "away"}
        assert set(session.scalars(select(Domain.name))) == {"on-with-job", "on-with-point"}
    assert count_of(database, Slot) == 0


def test_a_host_whose_last_job_goes_is_removed_in_the_same_run(database: Database) -> None:
    with database.write() as session:
        add_host(session, "gone", timedelta(days=YEAR))
        add_ended(session, YEAR, host_id="gone")
    removed = prune(database)
    assert (removed["jobs"], removed["hosts"]) == (1, 1)


def test_what_is_known_of_a_guest_goes_when_neither_a_job_nor_a_host_has_it_any_more(database: Database) -> None:
    with database.write() as session:
        add_host(session)
        published = add_memory(session, YEAR, add_domain(session, "db2"))
        with_job = add_memory(session, YEAR, DB1)
        add_ended(session, 10)
        lately = add_memory(session, 364)
        add_memory(session, YEAR)
    assert prune(database)["guest_memories"] == 1
    with database.read() as session:
        assert set(session.scalars(select(GuestMemory.domain_id))) == {published, with_job, lately}


# --- in small steps, and by several ---------------------------------------------------------------


def _pruned(database: Database) -> dict[tuple[str, str], int]:
    with database.read() as session:
        return {(row.kind, row.state): row.count for row in session.scalars(select(PrunedJobs))}


def test_how_many_jobs_went_stays_on_record_by_kind_and_state(database: Database) -> None:
    with database.write() as session:
        for kind, state in (("snapshot", "succeeded"), ("snapshot", "failed"), ("preflight", "failed"), ("snapshot", "failed")):
            add_ended(session, YEAR, kind=kind, state=state)
    prune(database)
    counts = {("snapshot", "succeeded"): 1, ("snapshot", "failed"): 2, ("preflight", "failed"): 1}
    assert _pruned(database) == counts
    with database.write() as session:
        add_ended(session, YEAR)
    prune(database)
    assert _pruned(database) == counts | {("snapshot", "succeeded"): 2}


def test_several_processes_remove_each_job_once(database: Database) -> None:
    with database.write() as session:
        for n in range(60):
            add_ended(session, YEAR, state="failed" if n % 2 else "succeeded", labels={"n": str(n)})
        all_due = due(Settings(state_dir=Path("/nowhere")), database_now(session))
    together, counts = threading.Barrier(4), []

    def one() -> None:
        together.wait()
        counts.append(Pruning(database, threading.Event()).run(all_due)["jobs"])

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 60
    assert _pruned(database) == {("snapshot", "failed"): 30, ("snapshot", "succeeded"): 30}
    assert count_of(database, JobLabel) == 0


class Stopping(Pace):
    """The service is told to stop in the first transaction."""

    def __init__(self, stopping: threading.Event) -> None:
        super().__init__()
        self._stopping = stopping

    def note(self, took_s: float) -> None:
        self._stopping.set()


def test_a_run_that_is_stopped_goes_on_at_the_next_start(database: Database) -> None:
    with database.write() as session:
        for _ in range(50):
            add_ended(session, YEAR)
        all_due = due(Settings(state_dir=Path("/nowhere")), database_now(session))
    stopping = threading.Event()
    first = Pruning(database, stopping, lambda: Stopping(stopping)).run(all_due)["jobs"]
    assert 0 < first < 50
    assert count_of(database, Job) == 50 - first
    assert prune(database)["jobs"] == 50 - first
    assert _pruned(database) == {("snapshot", "succeeded"): 50}


def test_a_transaction_that_breaks_leaves_rows_and_counts_as_they_were(database: Database) -> None:
    with database.write() as session:
        add_ended(session, YEAR)
    with pytest.raises(RuntimeError), database.write() as session:
        ids = list(job_ids(database))
        assert ageing.JOBS.remove(session, ids, ago(365)) == 1
        raise RuntimeError
    assert (count_of(database, Job), _pruned(database)) == (1, {})


def test_a_row_that_another_process_holds_is_left_to_it(postgres_url: str) -> None:
    database = Database(open_engine(postgres_url))
    with database.write() as session:
        held, free = add_ended(session, YEAR), add_ended(session, YEAR)
    with database.write() as other:
        other.execute(text("SELECT id FROM jobs WHERE id = :id FOR UPDATE"), {"id": held})
        with database.write() as session:
            assert ageing.JOBS.remove(session, [held, free], ago(365)) == 1
    assert job_ids(database) == {held}
    database.dispose()


# --- runs of schedules -----------------------------------------------------------------------------


def test_what_became_of_a_due_run_is_kept_for_as_long_as_jobs(database: Database) -> None:
    """Several runs may have been decided at one instant."""
    same: dict[str, Any] = {
        "policy_id": "p",
        "policy_name": "p",
        "track": "t",
        "domain_id": "d",
        "domain_name": "d",
        "outcome": "missed",
        "facts": {},
    }
    instants = [ago(400), ago(400), ago(1), ago(1)]
    instants[1] = instants[0]
    with database.write() as session:
        for n, decided_at in enumerate(instants):
            session.add(ScheduleRun(schedule_id=f"s{n}", due_at=decided_at, decided_at=decided_at, **same))
    prune(database)
    with database.read() as session:
        assert sorted(session.scalars(select(ScheduleRun.schedule_id))) == ["s2", "s3"]


# --- many rows ------------------------------------------------------------------------------------


def test_removing_from_many_reads_only_the_rows_that_it_was_given(sqlite_database: Database) -> None:
    """SQLite would rather look through all finished jobs than look up fifty, where a condition lets it."""
    with sqlite_database.write() as session:
        first = session.get_one(Job, add_ended(session, YEAR))
        same = {column.key: getattr(first, column.key) for column in Job.__table__.columns}
        session.execute(insert(Job), [{**same, "id": str(uuid4()), "state": "failed" if n % 10 == 0 else "succeeded"} for n in range(200)])
        ids = list(session.scalars(select(Job.id).limit(50)))
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if " jobs" in statement and not statement.startswith("EXPLAIN"):
            plans.extend(row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters))

    with sqlite_database.write() as session:
        event.listen(session.connection(), "before_cursor_execute", explain)
        assert ageing.JOBS.remove(session, ids, ago(365)) == 50
    of_jobs = [step for step in plans if " jobs " in step]
    assert len(of_jobs) == 3
    assert all(step.endswith("(id=?)") for step in of_jobs), of_jobs


# --- last jobs, free space ------------------------------------------------------------------------


def test_the_last_job_of_a_domain_goes_when_the_domain_is_gone_and_its_last_job_is_old(database: Database) -> None:
    def last(domain_id: str, kind: str, days: int) -> LastJob:
        at = ago(days)
        return LastJob(domain_id=domain_id, kind=kind, job_id="j", state="succeeded", ended_at=at, in_a_row=1, since=at)

    with database.write() as session:
        add_host(session)
        add_domain(session, "db1", DB1)
        session.add_all([last(DB1, "backup", YEAR), last("gone", "backup", YEAR), last("gone", "verify", YEAR)])
        session.add_all([last("young", "backup", YEAR), last("young", "verify", 364)])
    # Domains are counted.
    assert prune(database)["last_jobs"] == 1
    with database.read() as session:
        assert set(session.scalars(select(LastJob.domain_id))) == {DB1, "young"}


def test_free_space_is_forgotten_after_twice_the_time_that_the_trend_looks_back(database: Database) -> None:
    with database.write() as session:
        for name in ("a", "b"):
            add_repository(session, name, id=name)
            for days in (29, 27):
                session.add(RepositorySample(repository_id=name, at=ago(days), free_bytes=1))
    assert prune(database)["repository_samples"] == 2
    assert count_of(database, RepositorySample) == 2
