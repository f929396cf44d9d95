"""Every rule of the queue, on SQLite and on PostgreSQL."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from service.db.engine import Database
from service.db.tables import Job, JobLabel, Slot
from service.errors import CancelRefused, IdempotencyMismatch, JobNotFound, LeaseLost
from service.jobs import queue, slots
from service.jobs.queue import Claim, NewJob
from service.model.lifecycle import JobState
from tests.jobs.orders import a_snapshot, a_thaw

LEASE_S = 60.0


@pytest.fixture(autouse=True)
def _two_jobs_at_once_on_hv1(database: Database) -> None:
    _allow(database, "host:hv1", 2)


# --- adding ---------------------------------------------------------------------------------------


def test_a_new_job_is_queued_and_due_at_once(database: Database) -> None:
    job = _job(database, _add(database, a_snapshot()))
    assert (job.state, job.attempt, job.cancel_requested, job.phases) == ("queued", 0, False, [])
    assert job.run_after == job.created_at == job.updated_at


def test_labels_are_kept_with_the_time_of_their_job(database: Database) -> None:
    job = _job(database, _add(database, a_snapshot(labels={"team": "db", "tier": "gold"})))
    with database.read() as session:
        rows = session.scalars(select(JobLabel).order_by(JobLabel.key)).all()
    assert [(row.key, row.value, row.job_id, row.created_at) for row in rows] == [
        ("team", "db", job.id, job.created_at),
        ("tier", "gold", job.id, job.created_at),
    ]


def test_the_same_key_and_body_make_one_job(database: Database) -> None:
    order = a_snapshot(token="t1", key="k1", digest="d1")
    first = _add(database, order)
    with database.write() as session:
        second = queue.enqueue(session, order)
    assert (second.job.id, second.created) == (first, False)


def test_the_same_key_with_another_body_is_refused(database: Database) -> None:
    first = _add(database, a_snapshot(token="t1", key="k1", digest="d1"))
    with pytest.raises(IdempotencyMismatch) as refusal, database.write() as session:
        queue.enqueue(session, a_snapshot(token="t1", key="k1", digest="d2"))
    assert refusal.value.facts == {"key": "k1", "job_id": first}


def test_keys_of_two_tokens_do_not_meet(database: Database) -> None:
    first = _add(database, a_snapshot(token="t1", key="k1", digest="d1"))
    assert _add(database, a_snapshot(token="t2", key="k1", digest="d2")) != first


def test_a_key_without_a_token_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="token_id"):
        a_snapshot(key="k1", digest="d1")


def test_the_same_request_sent_eight_times_at_once_makes_one_job(database: Database) -> None:
    together, made = threading.Barrier(8), []

    def send() -> None:
        together.wait()
        with database.write() as session:
            made.append(queue.enqueue(session, a_snapshot(token="t1", key="k1", digest="d1", labels={"a": "b"})))

    _run_together([send] * 8)
    assert len(made) == 8
    assert len({one.job.id for one in made}) == 1
    assert [one.created for one in made].count(True) == 1


# --- claiming -------------------------------------------------------------------------------------


def test_a_claim_starts_the_job_and_takes_a_slot_of_its_host(database: Database) -> None:
    job_id = _add(database, a_snapshot(labels={"team": "db"}))
    before = datetime.now(UTC)
    claim = _claimed(database)
    job = _job(database, job_id)
    assert (claim.job_id, claim.attempt, claim.domain_name, claim.labels) == (job_id, 1, "db1", {"team": "db"})
    assert claim.request == {"kind": "snapshot", "domain": "db1"}
    assert (job.state, job.lease_token, job.lease_owner, job.attempt) == ("running", claim.lease_token, "me", 1)
    assert job.started_at is not None and job.lease_until is not None
    assert before + timedelta(seconds=LEASE_S - 5) < job.lease_until < before + timedelta(seconds=LEASE_S + 5)
    assert _in_use(database) == {"host:hv1": [job_id]}


def test_nothing_queued_means_nothing_to_claim(database: Database) -> None:
    assert _claim(database) is None


def test_a_job_of_another_host_is_not_claimed(database: Database) -> None:
    _add(database, a_snapshot(host="hv2"))
    assert _claim(database) is None


def test_a_job_is_not_claimed_before_it_is_due(database: Database) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    _add(database, a_snapshot(run_after=tomorrow))
    assert _claim(database) is None
    assert _claim(database, now=tomorrow + timedelta(seconds=1)) is not None


def test_the_job_that_is_due_for_longest_comes_first(database: Database) -> None:
    now = datetime.now(UTC)
    late = _add(database, a_snapshot("a", run_after=now - timedelta(minutes=1)))
    early = _add(database, a_snapshot("b", run_after=now - timedelta(minutes=2)))
    assert [_claimed(database).job_id, _claimed(database).job_id] == [early, late]


def test_a_second_job_of_a_domain_waits_for_the_first(database: Database) -> None:
    first, second = _add(database, a_snapshot()), _add(database, a_snapshot())
    claim = _claimed(database)
    assert claim.job_id == first
    assert _claim(database) is None
    _finish(database, claim)
    assert _claimed(database).job_id == second


def test_an_interrupted_job_still_holds_its_domain(database: Database) -> None:
    _add(database, a_snapshot())
    _add(database, a_snapshot())
    _claimed(database)
    _everything_expires(database)
    assert _claim(database) is None


def test_a_domain_that_runs_on_another_host_is_busy_here_too(database: Database) -> None:
    _allow(database, "host:hv2", 1)
    _add(database, a_snapshot(host="hv2"))
    _add(database, a_snapshot(host="hv1"))
    assert _claim(database, "hv2") is not None
    assert _claim(database, "hv1") is None


def test_the_host_runs_no_more_jobs_than_it_has_slots(database: Database) -> None:
    for domain in "abc":
        _add(database, a_snapshot(domain))
    claims = [_claimed(database), _claimed(database)]
    assert _claim(database) is None
    _finish(database, claims[0])
    assert _claimed(database).domain_name == "c"


def test_a_storage_is_shared_by_all_hosts(database: Database) -> None:
    _allow(database, "host:hv2", 2)
    _allow(database, "storage:nas", 1)
    _add(database, a_snapshot("a", "hv1", storage="nas"))
    _add(database, a_snapshot("b", "hv2", storage="nas"))
    claim = _claimed(database, "hv1")
    assert _claim(database, "hv2") is None
    _finish(database, claim)
    assert _claimed(database, "hv2").domain_name == "b"


def test_a_claim_that_fails_for_the_storage_leaves_no_slot_of_the_host_taken(database: Database) -> None:
    _allow(database, "storage:nas", 0)
    _add(database, a_snapshot("a", storage="nas"))
    assert _claim(database) is None
    assert _in_use(database) == {}


def test_a_hundred_jobs_that_cannot_run_do_not_stop_the_one_behind_them(database: Database) -> None:
    _allow(database, "storage:nas", 1)
    _add(database, a_snapshot("busy", storage="nas"))
    _claimed(database)
    for _ in range(50):
        _add(database, a_snapshot("busy"))
    for n in range(50):
        _add(database, a_snapshot(f"waits-for-storage-{n}", storage="nas"))
    last = _add(database, a_snapshot("free"))
    assert _claimed(database).job_id == last


def test_a_thaw_passes_a_busy_domain_a_full_host_and_older_jobs(database: Database) -> None:
    for domain in "abc":
        _add(database, a_snapshot(domain))
    _claimed(database), _claimed(database)
    thaw = _add(database, a_thaw("a"))
    assert _claimed(database).job_id == thaw
    assert len(_in_use(database)["host:hv1"]) == 2


def test_two_thaws_of_a_domain_run_at_once(database: Database) -> None:
    _add(database, a_thaw()), _add(database, a_thaw())
    assert {_claimed(database).attempt, _claimed(database).attempt} == {1}


def test_only_the_kinds_asked_for_are_claimed(database: Database) -> None:
    _add(database, a_snapshot("a"))
    preflight = _add(database, a_snapshot("b", kind="preflight"))
    _add(database, a_thaw("c"))
    assert _claimed(database, only_kinds=["preflight"]).job_id == preflight
    assert _claim(database, only_kinds=["preflight"]) is None


def test_the_database_itself_refuses_a_second_running_job_of_a_domain(database: Database) -> None:
    _add(database, a_snapshot()), _add(database, a_snapshot())
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(update(Job).values(state="running"))


# --- while it runs --------------------------------------------------------------------------------


def test_renewing_moves_the_end_of_the_lease(database: Database) -> None:
    _add(database, a_snapshot())
    claim = _claimed(database)
    later = datetime.now(UTC) + timedelta(hours=1)
    with database.write() as session:
        assert queue.renew(session, claim.job_id, claim.lease_token, LEASE_S, now=later) is False
    assert _job(database, claim.job_id).lease_until == later + timedelta(seconds=LEASE_S)


def test_renewing_tells_that_somebody_wants_to_cancel(database: Database) -> None:
    _add(database, a_snapshot())
    claim = _claimed(database)
    with database.write() as session:
        assert queue.request_cancel(session, claim.job_id).state == "running"
    with database.write() as session:
        assert queue.renew(session, claim.job_id, claim.lease_token, LEASE_S) is True


def test_a_worker_writes_what_it_does(database: Database) -> None:
    _add(database, a_snapshot())
    claim = _claimed(database)
    with database.write() as session:
        queue.write(session, claim.job_id, claim.lease_token, {"phase": "freeze", "intent": {"overlays": ["a"]}})
    job = _job(database, claim.job_id)
    assert (job.phase, job.intent) == ("freeze", {"overlays": ["a"]})


def test_a_worker_cannot_write_what_belongs_to_the_queue(database: Database) -> None:
    _add(database, a_snapshot())
    claim = _claimed(database)
    with pytest.raises(ValueError, match="state"), database.write() as session:
        queue.write(session, claim.job_id, claim.lease_token, {"state": "succeeded"})


@pytest.mark.parametrize("state", [JobState.succeeded, JobState.failed, JobState.cancelled])
def test_finishing_ends_the_lease_and_frees_the_slots(database: Database, state: JobState) -> None:
    _allow(database, "storage:nas", 1)
    _add(database, a_snapshot(storage="nas"))
    claim = _claimed(database)
    assert _in_use(database) == {"host:hv1": [claim.job_id], "storage:nas": [claim.job_id]}
    _finish(database, claim, state)
    job = _job(database, claim.job_id)
    assert (job.state, job.lease_token, job.lease_until, job.lease_owner) == (state.value, None, None, None)
    assert job.finished_at is not None
    assert _in_use(database) == {}


@pytest.mark.parametrize("state", [JobState.queued, JobState.running, JobState.interrupted])
def test_a_job_cannot_finish_in_a_state_that_is_no_end(database: Database, state: JobState) -> None:
    _add(database, a_snapshot())
    claim = _claimed(database)
    with pytest.raises(ValueError, match=state.value):
        _finish(database, claim, state)


# --- a worker that lost its lease -----------------------------------------------------------------


def test_whoever_lost_the_lease_can_neither_renew_nor_write_nor_finish(database: Database) -> None:
    _add(database, a_snapshot())
    zombie = _claimed(database)
    _everything_expires(database)
    _resolve(database, zombie.job_id, JobState.queued)
    second = _claimed(database)
    assert (second.job_id, second.attempt) == (zombie.job_id, 2)
    with pytest.raises(LeaseLost), database.write() as session:
        queue.renew(session, zombie.job_id, zombie.lease_token, LEASE_S)
    with pytest.raises(LeaseLost), database.write() as session:
        queue.write(session, zombie.job_id, zombie.lease_token, {"phase": "thaw"})
    with pytest.raises(LeaseLost):
        _finish(database, zombie)
    job = _job(database, zombie.job_id)
    assert (job.state, job.phase, job.lease_token) == ("running", None, second.lease_token)
    assert _in_use(database) == {"host:hv1": [zombie.job_id]}
    _finish(database, second)


def test_only_leases_that_ran_out_are_released(database: Database) -> None:
    now = datetime.now(UTC)
    short, long = _add(database, a_snapshot("a")), _add(database, a_snapshot("b"))
    with database.write() as session:
        queue.claim(session, "hv1", "me", 10, now=now + timedelta(seconds=1))
    with database.write() as session:
        queue.claim(session, "hv1", "me", 100, now=now + timedelta(seconds=1))
    with database.write() as session:
        assert queue.release_expired(session, "hv2", now=now + timedelta(seconds=50)) == []
        assert queue.release_expired(session, "hv1", now=now + timedelta(seconds=5)) == []
        assert queue.release_expired(session, "hv1", now=now + timedelta(seconds=50), live=[short]) == []
        assert queue.release_expired(session, "hv1", now=now + timedelta(seconds=50)) == [short]
    job = _job(database, short)
    assert (job.state, job.lease_token, job.lease_until, job.lease_owner) == ("interrupted", None, None, None)
    assert _in_use(database) == {"host:hv1": [long]}


def test_a_worker_that_starts_releases_everything_of_its_host(database: Database) -> None:
    _allow(database, "host:hv2", 1)
    _add(database, a_snapshot("a")), _add(database, a_snapshot("b", "hv2"))
    here, there = _claimed(database), _claimed(database, "hv2")
    with database.write() as session:
        assert queue.release_expired(session, "hv1", all_running=True) == [here.job_id]
    with database.read() as session:
        assert [job.id for job in queue.interrupted(session, "hv1")] == [here.job_id]
        assert queue.interrupted(session, "hv2") == []
    assert _job(database, there.job_id).state == "running"


def test_an_interrupted_job_runs_again_only_after_recovery_said_so(database: Database) -> None:
    job_id = _add(database, a_snapshot())
    started_at = _job(database, _claimed(database).job_id).started_at
    _everything_expires(database)
    assert _claim(database) is None
    _resolve(database, job_id, JobState.queued, {"phases": [{"name": "recover"}]})
    claim = _claimed(database)
    assert (claim.attempt, claim.phases) == (2, [{"name": "recover"}])
    assert _job(database, job_id).started_at == started_at


@pytest.mark.parametrize("to", [JobState.failed, JobState.cancelled])
def test_recovery_may_end_an_interrupted_job(database: Database, to: JobState) -> None:
    job_id = _add(database, a_snapshot())
    _claimed(database)
    _everything_expires(database)
    assert _resolve(database, job_id, to, {"error": {"code": "worker_lost"}}).finished_at is not None
    job = _job(database, job_id)
    assert (job.state, job.error) == (to.value, {"code": "worker_lost"})


def test_recovery_decides_once(database: Database) -> None:
    job_id = _add(database, a_snapshot())
    _claimed(database)
    _everything_expires(database)
    _resolve(database, job_id, JobState.queued)
    with pytest.raises(LeaseLost):
        _resolve(database, job_id, JobState.failed)
    with pytest.raises(JobNotFound):
        _resolve(database, "no-such-job", JobState.failed)
    with pytest.raises(ValueError, match="succeeded"):
        _resolve(database, job_id, JobState.succeeded)


def test_a_cancel_that_comes_while_recovery_decides_is_not_forgotten(database: Database) -> None:
    job_id = _add(database, a_snapshot())
    _claimed(database)
    _everything_expires(database)
    with database.write() as session:
        queue.request_cancel(session, job_id)
    _resolve(database, job_id, JobState.queued)
    job = _job(database, job_id)
    assert job.state == "cancelled"
    assert job.error is not None and job.error["code"] == "job_cancelled"
    assert job.finished_at is not None


# --- cancelling -----------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(database: Database) -> None:
    job_id = _add(database, a_snapshot())
    with database.write() as session:
        queue.request_cancel(session, job_id)
    job = _job(database, job_id)
    assert (job.state, job.cancel_requested) == ("cancelled", False)
    assert job.error is not None and job.error["code"] == "job_cancelled"
    assert job.finished_at is not None
    assert _claim(database) is None


def test_a_running_job_is_asked_to_cancel_as_often_as_one_likes(database: Database) -> None:
    _add(database, a_snapshot())
    claim = _claimed(database)
    for _ in range(2):
        with database.write() as session:
            queue.request_cancel(session, claim.job_id)
    job = _job(database, claim.job_id)
    assert (job.state, job.cancel_requested) == ("running", True)
    _finish(database, claim, JobState.cancelled)


def test_a_job_that_ended_cannot_be_cancelled(database: Database) -> None:
    _add(database, a_snapshot())
    claim = _claimed(database)
    _finish(database, claim)
    with pytest.raises(CancelRefused) as refusal, database.write() as session:
        queue.request_cancel(session, claim.job_id)
    assert refusal.value.facts["state"] == "succeeded"


def test_a_job_that_does_not_exist_cannot_be_cancelled(database: Database) -> None:
    with pytest.raises(JobNotFound), database.write() as session:
        queue.request_cancel(session, "no-such-job")


# --- slots ----------------------------------------------------------------------------------------


def test_slots_grow_and_shrink_to_the_number_asked_for(database: Database) -> None:
    for n in (3, 3, 5, 1, 0, 2):
        _allow(database, "storage:nas", n)
        assert _slots(database, "storage:nas") == [None] * n


def test_shrinking_takes_no_slot_that_is_in_use(database: Database) -> None:
    _allow(database, "host:hv1", 4)
    for domain in "abc":
        _add(database, a_snapshot(domain))
    claims = [_claimed(database) for _ in "abc"]
    _finish(database, claims[0])
    _allow(database, "host:hv1", 1)
    assert _slots(database, "host:hv1") == [claims[1].job_id, claims[2].job_id]
    _finish(database, claims[1])
    _allow(database, "host:hv1", 1)
    assert _slots(database, "host:hv1") == [claims[2].job_id]
    _allow(database, "host:hv1", 3)
    assert sorted(_slots(database, "host:hv1"), key=str) == sorted([None, None, claims[2].job_id], key=str)


def test_two_hosts_that_make_the_slots_of_a_storage_at_once_make_them_once(database: Database) -> None:
    together = threading.Barrier(2)

    def ensure() -> None:
        together.wait()
        _allow(database, "storage:nas", 8)

    _run_together([ensure] * 2)
    assert _slots(database, "storage:nas") == [None] * 8


# --- short words for the tests above --------------------------------------------------------------


def _allow(database: Database, resource: str, n: int) -> None:
    with database.write() as session:
        slots.ensure_slots(session, resource, n)


def _add(database: Database, new: NewJob) -> str:
    with database.write() as session:
        return queue.enqueue(session, new).job.id


def _claim(database: Database, host: str = "hv1", *, only_kinds: list[str] | None = None, now: datetime | None = None) -> Claim | None:
    with database.write() as session:
        return queue.claim(session, host, "me", LEASE_S, only_kinds=only_kinds, now=now)


def _claimed(database: Database, host: str = "hv1", *, only_kinds: list[str] | None = None) -> Claim:
    claim = _claim(database, host, only_kinds=only_kinds)
    assert claim is not None
    return claim


def _finish(database: Database, claim: Claim, state: JobState = JobState.succeeded) -> None:
    with database.write() as session:
        queue.finish(session, claim.job_id, claim.lease_token, state, {"phase": None})


def _everything_expires(database: Database) -> None:
    with database.write() as session:
        queue.release_expired(session, "hv1", now=datetime.now(UTC) + timedelta(days=1))


def _resolve(database: Database, job_id: str, to: JobState, values: dict[str, object] | None = None) -> Job:
    with database.write() as session:
        return queue.resolve_interrupted(session, job_id, to, values or {})


def _job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def _slots(database: Database, resource: str) -> list[str | None]:
    with database.read() as session:
        return list(session.scalars(select(Slot.job_id).where(Slot.resource == resource).order_by(Slot.n)))


def _in_use(database: Database) -> dict[str, list[str]]:
    taken: dict[str, list[str]] = {}
    with database.read() as session:
        for slot in session.scalars(select(Slot).where(Slot.job_id.is_not(None))):
            taken.setdefault(slot.resource, []).append(str(slot.job_id))
    return taken


def _run_together(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
