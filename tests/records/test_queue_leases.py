"""Jobs that run, are lost, or are cancelled, and the slots they hold: every rule, on SQLite and on PostgreSQL."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from service.db.engine import Database
from service.errors import CancelRefused, JobNotFound, LeaseLost
from service.model.lifecycle import JobState
from service.records import queue
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import (
    LEASE_S,
    add,
    allow,
    claimed,
    everything_expires,
    finish,
    job_of,
    resolve,
    run_together,
    slots_in_use,
    slots_of,
    try_to_claim,
)


@pytest.fixture(autouse=True)
def _two_jobs_at_once_on_hv1(database: Database) -> None:
    allow(database, "host:hv1:quick", 2)


# --- while it runs --------------------------------------------------------------------------------


def test_renewing_moves_the_end_of_the_lease(database: Database) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    later = datetime.now(UTC) + timedelta(hours=1)
    with database.write() as session:
        assert queue.renew(session, claim.job_id, claim.lease_token, LEASE_S, now=later) is False
    assert job_of(database, claim.job_id).lease_until == later + timedelta(seconds=LEASE_S)


def test_renewing_tells_that_somebody_wants_to_cancel(database: Database) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    with database.write() as session:
        assert queue.request_cancel(session, claim.job_id) is JobState.running
    with database.write() as session:
        assert queue.renew(session, claim.job_id, claim.lease_token, LEASE_S) is True


def test_a_worker_writes_what_it_does(database: Database) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    with database.write() as session:
        queue.write(session, claim.job_id, claim.lease_token, {"phase": "freeze", "intent": {"overlays": ["a"]}})
    job = job_of(database, claim.job_id)
    assert (job.phase, job.intent) == ("freeze", {"overlays": ["a"]})


@pytest.mark.parametrize("column", ["state", "lease_token", "lease_until", "attempt"])
def test_a_worker_cannot_write_what_belongs_to_the_queue(database: Database, column: str) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    with pytest.raises(ValueError, match=column), database.write() as session:
        queue.write(session, claim.job_id, claim.lease_token, {column: None})


@pytest.mark.parametrize("state", [JobState.succeeded, JobState.failed, JobState.cancelled])
def test_finishing_ends_the_lease_and_frees_the_slots(database: Database, state: JobState) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    assert slots_in_use(database) == {"host:hv1:quick": [claim.job_id]}
    finish(database, claim, state)
    job = job_of(database, claim.job_id)
    assert (job.state, job.lease_token, job.lease_until, job.lease_owner) == (state.value, None, None, None)
    assert job.finished_at is not None
    assert slots_in_use(database) == {}


@pytest.mark.parametrize("state", [JobState.queued, JobState.running, JobState.interrupted])
def test_a_job_cannot_finish_in_a_state_that_is_no_end(database: Database, state: JobState) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    with pytest.raises(ValueError, match=state.value):
        finish(database, claim, state)


# --- a worker that lost its lease -----------------------------------------------------------------


def test_whoever_lost_the_lease_can_neither_renew_nor_write_nor_finish(database: Database) -> None:
    add(database, a_snapshot())
    zombie = claimed(database)
    everything_expires(database)
    resolve(database, zombie.job_id, JobState.queued)
    second = claimed(database)
    assert (second.job_id, second.attempt) == (zombie.job_id, 2)
    with pytest.raises(LeaseLost), database.write() as session:
        queue.renew(session, zombie.job_id, zombie.lease_token, LEASE_S)
    with pytest.raises(LeaseLost), database.write() as session:
        queue.write(session, zombie.job_id, zombie.lease_token, {"phase": "thaw"})
    with pytest.raises(LeaseLost):
        finish(database, zombie)
    job = job_of(database, zombie.job_id)
    assert (job.state, job.phase, job.lease_token) == ("running", None, second.lease_token)
    assert slots_in_use(database) == {"host:hv1:quick": [zombie.job_id]}
    finish(database, second)


def test_only_leases_that_ran_out_are_released(database: Database) -> None:
    now = datetime.now(UTC)
    short, long = add(database, a_snapshot("a")), add(database, a_snapshot("b"))
    with database.write() as session:
        queue.claim(session, "hv1", "me", 10, now=now + timedelta(seconds=1))
    with database.write() as session:
        queue.claim(session, "hv1", "me", 100, now=now + timedelta(seconds=1))
    with database.write() as session:
        assert queue.release_expired(session, "hv2", now=now + timedelta(seconds=50)) == []
        assert queue.release_expired(session, "hv1", now=now + timedelta(seconds=5)) == []
        assert queue.release_expired(session, "hv1", now=now + timedelta(seconds=50), live=[short]) == []
        assert queue.release_expired(session, "hv1", now=now + timedelta(seconds=50)) == [short]
    job = job_of(database, short)
    assert (job.state, job.lease_token, job.lease_until, job.lease_owner) == ("interrupted", None, None, None)
    assert slots_in_use(database) == {"host:hv1:quick": [long]}


def test_a_worker_that_starts_releases_everything_of_its_host(database: Database) -> None:
    allow(database, "host:hv2:quick", 1)
    add(database, a_snapshot("a")), add(database, a_snapshot("b", "hv2"))
    here, there = claimed(database), claimed(database, "hv2")
    with database.write() as session:
        assert queue.release_expired(session, "hv1", all_running=True) == [here.job_id]
    with database.read() as session:
        assert [job.id for job in queue.interrupted(session, "hv1")] == [here.job_id]
        assert queue.interrupted(session, "hv2") == []
    assert job_of(database, there.job_id).state == "running"


def test_an_interrupted_job_runs_again_only_after_recovery_said_so(database: Database) -> None:
    job_id = add(database, a_snapshot())
    started_at = job_of(database, claimed(database).job_id).started_at
    everything_expires(database)
    assert try_to_claim(database) is None
    resolve(database, job_id, JobState.queued, {"phases": [{"name": "recover"}]})
    claim = claimed(database)
    assert (claim.attempt, claim.phases) == (2, [{"name": "recover"}])
    assert job_of(database, job_id).started_at == started_at


@pytest.mark.parametrize("to", [JobState.failed, JobState.cancelled])
def test_recovery_may_end_an_interrupted_job(database: Database, to: JobState) -> None:
    job_id = add(database, a_snapshot())
    claimed(database)
    everything_expires(database)
    assert resolve(database, job_id, to, {"error": {"code": "worker_lost"}}) is to
    job = job_of(database, job_id)
    assert (job.state, job.error) == (to.value, {"code": "worker_lost"})
    assert job.finished_at is not None


def test_recovery_decides_once(database: Database) -> None:
    job_id = add(database, a_snapshot())
    claimed(database)
    everything_expires(database)
    with pytest.raises(ValueError, match=JobState.succeeded):
        resolve(database, job_id, JobState.succeeded)
    resolve(database, job_id, JobState.queued)
    with pytest.raises(LeaseLost):
        resolve(database, job_id, JobState.failed)
    with pytest.raises(JobNotFound):
        resolve(database, "no-such-job", JobState.failed)


def test_a_cancel_that_comes_while_recovery_decides_is_not_forgotten(database: Database) -> None:
    job_id = add(database, a_snapshot())
    claimed(database)
    everything_expires(database)
    with database.write() as session:
        queue.request_cancel(session, job_id)
    resolve(database, job_id, JobState.queued)
    job = job_of(database, job_id)
    assert job.state == "cancelled"
    assert job.error is not None and job.error["code"] == "job_cancelled"
    assert job.finished_at is not None


# --- cancelling -----------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(database: Database) -> None:
    job_id = add(database, a_snapshot())
    with database.write() as session:
        queue.request_cancel(session, job_id)
    job = job_of(database, job_id)
    assert (job.state, job.cancel_requested) == ("cancelled", False)
    assert job.error is not None and job.error["code"] == "job_cancelled"
    assert job.finished_at is not None
    assert try_to_claim(database) is None


def test_a_queued_job_that_left_something_on_its_guest_begins_once_more_when_it_is_cancelled(database: Database) -> None:
    job_id = add(database, a_snapshot())
    claimed(database)
    everything_expires(database)
    resolve(database, job_id, JobState.queued, {"intent": {"overlays": ["a"]}})
    with database.write() as session:
        assert queue.request_cancel(session, job_id) is JobState.queued
    assert job_of(database, job_id).cancel_requested
    claim = claimed(database)
    assert (claim.job_id, claim.is_cancelled) == (job_id, True)


def test_a_cancel_that_comes_while_recovery_leaves_something_on_the_guest_waits_for_the_next_attempt(database: Database) -> None:
    job_id = add(database, a_snapshot())
    claimed(database)
    everything_expires(database)
    with database.write() as session:
        queue.request_cancel(session, job_id)
    resolve(database, job_id, JobState.queued, {"intent": {"overlays": ["a"]}})
    assert job_of(database, job_id).state == "queued"
    assert claimed(database).is_cancelled


def test_a_running_job_is_asked_to_cancel_as_often_as_one_likes(database: Database) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    for _ in range(2):
        with database.write() as session:
            queue.request_cancel(session, claim.job_id)
    job = job_of(database, claim.job_id)
    assert (job.state, job.cancel_requested) == ("running", True)
    finish(database, claim, JobState.cancelled)


def test_a_job_that_ended_cannot_be_cancelled(database: Database) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    finish(database, claim)
    with pytest.raises(CancelRefused) as refusal, database.write() as session:
        queue.request_cancel(session, claim.job_id)
    assert refusal.value.facts["state"] == "succeeded"


def test_a_job_that_does_not_exist_cannot_be_cancelled(database: Database) -> None:
    with pytest.raises(JobNotFound), database.write() as session:
        queue.request_cancel(session, "no-such-job")


# --- slots ----------------------------------------------------------------------------------------


def test_slots_grow_and_shrink_to_the_number_asked_for(database: Database) -> None:
    for n in (3, 3, 5, 1, 0, 2):
        allow(database, "host:hv9:quick", n)
        assert slots_of(database, "host:hv9:quick") == [None] * n


def test_shrinking_takes_no_slot_that_is_in_use(database: Database) -> None:
    allow(database, "host:hv1:quick", 4)
    for domain in "abc":
        add(database, a_snapshot(domain))
    claims = [claimed(database) for _ in "abc"]
    finish(database, claims[0])
    allow(database, "host:hv1:quick", 1)
    assert slots_of(database, "host:hv1:quick") == [claims[1].job_id, claims[2].job_id]
    finish(database, claims[1])
    allow(database, "host:hv1:quick", 1)
    assert slots_of(database, "host:hv1:quick") == [claims[2].job_id]
    allow(database, "host:hv1:quick", 3)
    assert sorted(slots_of(database, "host:hv1:quick"), key=str) == sorted([None, None, claims[2].job_id], key=str)


def test_two_that_make_the_slots_of_a_host_at_once_make_them_once(database: Database) -> None:
    together = threading.Barrier(2)

    def ensure() -> None:
        together.wait()
        allow(database, "host:hv9:quick", 8)

    run_together([ensure] * 2)
    assert slots_of(database, "host:hv9:quick") == [None] * 8
