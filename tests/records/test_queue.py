"""Adding and claiming: every rule, on SQLite and on PostgreSQL."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from service.db.engine import Database
from service.db.tables import Job, JobLabel
from service.errors import IdempotencyMismatch
from service.model.requests import VERSION, SnapshotRequest
from service.records import queue
from tests.scenes.orders import a_snapshot, a_thaw
from tests.scenes.queue import (
    LEASE_S,
    add,
    allow,
    claimed,
    everything_expires,
    finish,
    job_of,
    run_together,
    slots_in_use,
    try_to_claim,
)


@pytest.fixture(autouse=True)
def _two_jobs_at_once_on_hv1(database: Database) -> None:
    allow(database, "host:hv1:quick", 2)


# --- adding ---------------------------------------------------------------------------------------


def test_a_new_job_is_queued_and_due_at_once(database: Database) -> None:
    job = job_of(database, add(database, a_snapshot()))
    assert (job.state, job.attempt, job.cancel_requested, job.phases) == ("queued", 0, False, [])
    assert job.run_after == job.created_at == job.updated_at


def test_labels_are_kept_with_the_time_of_their_job(database: Database) -> None:
    job = job_of(database, add(database, a_snapshot(labels={"team": "db", "tier": "gold"})))
    with database.read() as session:
        rows = session.scalars(select(JobLabel).order_by(JobLabel.key)).all()
    assert [(row.key, row.value, row.job_id, row.created_at) for row in rows] == [
        ("team", "db", job.id, job.created_at),
        ("tier", "gold", job.id, job.created_at),
    ]


def test_the_same_key_and_body_make_one_job(database: Database) -> None:
    order = a_snapshot(token="t1", key="k1", digest="d1")
    first = add(database, order)
    with database.write() as session:
        second = queue.enqueue(session, order)
    assert (second.job_id, second.created) == (first, False)


def test_the_same_key_with_another_body_is_refused(database: Database) -> None:
    first = add(database, a_snapshot(token="t1", key="k1", digest="d1"))
    with pytest.raises(IdempotencyMismatch) as refusal, database.write() as session:
        queue.enqueue(session, a_snapshot(token="t1", key="k1", digest="d2"))
    assert refusal.value.facts == {"key": "k1", "job_id": first}


def test_keys_of_two_tokens_do_not_meet(database: Database) -> None:
    first = add(database, a_snapshot(token="t1", key="k1", digest="d1"))
    assert add(database, a_snapshot(token="t2", key="k1", digest="d2")) != first


def test_a_key_without_a_token_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="token_id"):
        a_snapshot(key="k1", digest="d1")


def test_the_same_request_sent_eight_times_at_once_makes_one_job(database: Database) -> None:
    together, made = threading.Barrier(8), []

    def send() -> None:
        together.wait()
        with database.write() as session:
            made.append(queue.enqueue(session, a_snapshot(token="t1", key="k1", digest="d1", labels={"a": "b"})))

    run_together([send] * 8)
    assert len(made) == 8
    assert len({one.job_id for one in made}) == 1
    assert [one.created for one in made].count(True) == 1


# --- claiming -------------------------------------------------------------------------------------


def test_a_claim_starts_the_job_and_takes_a_slot_of_its_host(database: Database) -> None:
    job_id = add(database, a_snapshot(labels={"team": "db"}))
    before = datetime.now(UTC)
    claim = claimed(database)
    job = job_of(database, job_id)
    assert (claim.job_id, claim.attempt, claim.domain_name, claim.labels) == (job_id, 1, "db1", {"team": "db"})
    assert claim.request == SnapshotRequest("db1")
    assert (job.state, job.lease_token, job.lease_owner, job.attempt) == ("running", claim.lease_token, "me", 1)
    assert job.started_at is not None and job.lease_until is not None
    assert before + timedelta(seconds=LEASE_S - 5) < job.lease_until < before + timedelta(seconds=LEASE_S + 5)
    assert slots_in_use(database) == {"host:hv1:quick": [job_id]}


def test_nothing_queued_means_nothing_to_claim(database: Database) -> None:
    assert try_to_claim(database) is None


def test_a_job_of_another_host_is_not_claimed(database: Database) -> None:
    add(database, a_snapshot(host="hv2"))
    assert try_to_claim(database) is None


def test_a_job_is_not_claimed_before_it_is_due(database: Database) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    add(database, a_snapshot(pause_s=86_400))
    assert try_to_claim(database) is None
    assert try_to_claim(database, now=tomorrow + timedelta(seconds=1)) is not None


def test_the_job_that_is_due_for_longest_comes_first(database: Database) -> None:
    late = add(database, a_snapshot("a", pause_s=-60))
    early = add(database, a_snapshot("b", pause_s=-120))
    assert [claimed(database).job_id, claimed(database).job_id] == [early, late]


def test_a_second_job_of_a_domain_waits_for_the_first(database: Database) -> None:
    first, second = add(database, a_snapshot()), add(database, a_snapshot())
    claim = claimed(database)
    assert claim.job_id == first
    assert try_to_claim(database) is None
    finish(database, claim)
    assert claimed(database).job_id == second


def test_an_interrupted_job_still_holds_its_domain(database: Database) -> None:
    add(database, a_snapshot())
    add(database, a_snapshot())
    claimed(database)
    everything_expires(database)
    assert try_to_claim(database) is None


def test_a_domain_that_runs_on_another_host_is_busy_here_too(database: Database) -> None:
    allow(database, "host:hv2:quick", 1)
    add(database, a_snapshot(host="hv2"))
    add(database, a_snapshot(host="hv1"))
    assert try_to_claim(database, "hv2") is not None
    assert try_to_claim(database, "hv1") is None


def test_the_host_runs_no_more_jobs_than_it_has_slots(database: Database) -> None:
    for domain in "abc":
        add(database, a_snapshot(domain))
    claims = [claimed(database), claimed(database)]
    assert try_to_claim(database) is None
    finish(database, claims[0])
    assert claimed(database).domain_name == "c"


def test_a_hundred_jobs_that_cannot_run_do_not_stop_the_one_behind_them(database: Database) -> None:
    add(database, a_snapshot("busy"))
    claimed(database)
    for _ in range(50):
        add(database, a_snapshot("busy"))
    for n in range(50):
        add(database, a_snapshot(f"later-{n}", pause_s=3_600))
    last = add(database, a_snapshot("free"))
    assert claimed(database).job_id == last


def test_a_thaw_passes_a_busy_domain_a_full_host_and_older_jobs(database: Database) -> None:
    for domain in "abc":
        add(database, a_snapshot(domain))
    claimed(database), claimed(database)
    thaw = add(database, a_thaw("a"))
    assert claimed(database).job_id == thaw
    assert len(slots_in_use(database)["host:hv1:quick"]) == 2


def test_two_thaws_of_a_domain_run_at_once(database: Database) -> None:
    add(database, a_thaw()), add(database, a_thaw())
    assert {claimed(database).attempt, claimed(database).attempt} == {1}


def test_only_the_kinds_asked_for_are_claimed(database: Database) -> None:
    add(database, a_snapshot("a"))
    preflight = add(database, a_snapshot("b", kind="preflight"))
    add(database, a_thaw("c"))
    assert claimed(database, only_kinds=["preflight"]).job_id == preflight
    assert try_to_claim(database, only_kinds=["preflight"]) is None


def test_a_job_that_a_newer_version_asked_for_waits_and_the_others_run(database: Database) -> None:
    newer, older, ours = (add(database, a_snapshot(name)) for name in ("a", "b", "c"))
    with database.write() as session:
        session.execute(update(Job).where(Job.id == newer).values(request_version=VERSION + 1))
        session.execute(update(Job).where(Job.id == older).values(request_version=0))
    assert {claimed(database).job_id, claimed(database).job_id} == {older, ours}
    assert try_to_claim(database) is None
    with database.read() as session:
        assert session.get_one(Job, newer).state == "queued"


def test_a_job_that_cannot_be_read_is_told_once_and_the_others_run(database: Database) -> None:
    senseless, ours = (add(database, a_snapshot(name)) for name in ("a", "b"))
    with database.write() as session:
        session.execute(update(Job).where(Job.id == senseless).values(request={"domain": "a", "freeze": {"mode": "gently"}}))
    with capture_logs() as logged:
        assert claimed(database).job_id == ours
        assert [try_to_claim(database) for _ in range(3)] == [None, None, None]
    assert [line["job_id"] for line in logged if line["event"] == "job_cannot_be_read"] == [senseless]


def test_the_database_itself_refuses_a_second_running_job_of_a_domain(database: Database) -> None:
    add(database, a_snapshot()), add(database, a_snapshot())
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(update(Job).values(state="running"))
