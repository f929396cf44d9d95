"""Real processes that claim jobs and are killed or stopped: no job is lost, run twice, or finished by a zombie."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
from sqlalchemy import func, select

from service.db.engine import Database, open_engine
from service.db.tables import Job, Slot
from service.model.lifecycle import JobState
from service.records import queue
from tests.process.queue_clients import client
from tests.scenes.orders import a_snapshot

LIMITS = {"host:hv1:quick": 2, "host:hv2:quick": 3}
SHORT_S = 0.5
LONG_S = 60.0


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(open_engine(database_url))
    with opened.write() as session:
        for resource, limit in LIMITS.items():
            queue.ensure_slots(session, resource, limit)
    yield opened
    opened.dispose()


def test_two_processes_of_four_threads_run_200_jobs_once_each_within_all_limits(database: Database, database_url: str) -> None:
    jobs = [_add(database, n) for n in range(200)]
    with client("drain", database_url, 4, LONG_S, 0.003) as one, client("drain", database_url, 4, LONG_S, 0.003) as two:
        _until_all_ended(database)
        said = one.rest() + two.rest()
    runs = [line for line in said if line["event"] == "ran"]
    assert sorted(run["job"] for run in runs) == sorted(jobs)
    assert [line for line in said if line["event"] == "database_away"] == []
    assert _most_at_once(runs, "domain") <= Counter({run["domain"]: 1 for run in runs})
    assert _most_at_once(runs, "host") <= Counter({"hv1": 2, "hv2": 3})
    assert _slots_in_use(database) == 0


def test_a_job_of_a_killed_process_waits_for_recovery_and_then_runs_again(database: Database, database_url: str) -> None:
    job_id = _add(database, 0)
    with client("hold", database_url, SHORT_S) as victim:
        assert victim.hears() == {"event": "claimed", "job": job_id, "attempt": 1}
        victim.kill()
    assert (_state(database, job_id), _slots_in_use(database)) == ("running", 1)
    assert _released_when_the_lease_is_over(database) == [job_id]
    assert (_state(database, job_id), _slots_in_use(database)) == ("interrupted", 0)
    with client("hold", database_url, LONG_S) as too_early:
        assert too_early.hears()["job"] is None
    _resolve(database, job_id, JobState.queued)
    with client("hold", database_url, LONG_S) as heir:
        assert heir.hears() == {"event": "claimed", "job": job_id, "attempt": 2}
        assert heir.rest() == [{"event": "finished", "job": job_id}]
    assert (_state(database, job_id), _slots_in_use(database)) == ("succeeded", 0)


def test_a_job_that_recovery_fails_does_not_run_again(database: Database, database_url: str) -> None:
    job_id = _add(database, 0)
    with client("hold", database_url, SHORT_S) as victim:
        victim.hears()
        victim.kill()
    _released_when_the_lease_is_over(database)
    _resolve(database, job_id, JobState.failed)
    with client("hold", database_url, LONG_S) as other:
        assert other.hears()["job"] is None
    assert (_state(database, job_id), _slots_in_use(database)) == ("failed", 0)


def test_a_worker_that_starts_again_need_not_wait_for_the_lease(database: Database, database_url: str) -> None:
    job_id = _add(database, 0)
    with client("hold", database_url, LONG_S) as victim:
        victim.hears()
        victim.kill()
    with database.write() as session:
        assert queue.release_expired(session, "hv1") == []
        assert queue.release_expired(session, "hv1", all_running=True) == [job_id]
    assert (_state(database, job_id), _slots_in_use(database)) == ("interrupted", 0)


def test_a_process_stopped_past_its_lease_cannot_finish_when_it_wakes(database: Database, database_url: str) -> None:
    job_id = _add(database, 0)
    with client("hold", database_url, SHORT_S) as zombie:
        assert zombie.hears() == {"event": "claimed", "job": job_id, "attempt": 1}
        zombie.stop()
        _released_when_the_lease_is_over(database)
        _resolve(database, job_id, JobState.queued)
        with client("hold", database_url, LONG_S) as heir:
            assert heir.hears() == {"event": "claimed", "job": job_id, "attempt": 2}
            zombie.cont()
            assert zombie.rest() == [{"event": "lease_lost", "job": job_id}]
            assert (_state(database, job_id), _slots_in_use(database)) == ("running", 1)
            assert heir.rest() == [{"event": "finished", "job": job_id}]
    assert (_state(database, job_id), _slots_in_use(database)) == ("succeeded", 0)


def test_processes_killed_at_any_moment_lose_no_job_and_leak_no_slot(database: Database, database_url: str) -> None:
    jobs = [_add(database, n) for n in range(240)]
    random = Random(7)
    with ExitStack() as stack:
        clients = [stack.enter_context(client("drain", database_url, 4, SHORT_S, 0.08)) for _ in range(2)]
        for _ in range(6):
            victim = random.randrange(2)
            assert clients[victim].hears()["event"] in ("started", "ran", "database_away")
            time.sleep(random.uniform(0, 0.2))
            clients[victim].kill()
            clients[victim] = stack.enter_context(client("drain", database_url, 4, SHORT_S, 0.08))
            _recover_expired(database)
        _until_all_ended(database, recover=True)
        for survivor in clients:
            survivor.rest()
    with database.read() as session:
        assert Counter(session.scalars(select(Job.state))) == {"succeeded": len(jobs)}
        assert Counter(session.scalars(select(Slot.resource))) == LIMITS
        again = session.scalar(select(func.count()).select_from(Job).where(Job.attempt > 1)) or 0
    assert _slots_in_use(database) == 0
    assert again > 0, "no process was killed while it had a job: the test tested nothing"


# --- short words for the tests above --------------------------------------------------------------


def _add(database: Database, n: int) -> str:
    """Jobs spread over domains and hosts."""
    order = a_snapshot(f"d{n % 12}", f"hv{1 + n % 12 % 2}")
    with database.write() as session:
        return queue.enqueue(session, order).job_id


def _state(database: Database, job_id: str) -> str:
    with database.read() as session:
        return session.get_one(Job, job_id).state


def _resolve(database: Database, job_id: str, to: JobState) -> None:
    with database.write() as session:
        queue.resolve_interrupted(session, job_id, to, {})


def _slots_in_use(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Slot).where(Slot.job_id.is_not(None))) or 0


def _released_when_the_lease_is_over(database: Database) -> list[str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with database.write() as session:
            released = queue.release_expired(session, "hv1")
        if released:
            return released
        time.sleep(0.05)
    raise AssertionError("no lease ran out")


def _recover_expired(database: Database) -> None:
    for host in ("hv1", "hv2"):
        with database.write() as session:
            queue.release_expired(session, host)
        with database.read() as session:
            waiting = [job.id for job in queue.interrupted(session, host)]
        for job_id in waiting:
            _resolve(database, job_id, JobState.queued)


def _until_all_ended(database: Database, *, recover: bool = False) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if recover:
            _recover_expired(database)
        with database.read() as session:
            left = session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(["queued", "running", "interrupted"])))
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"{left} jobs did not end")


def _most_at_once(runs: list[dict[str, Any]], key: str) -> "Counter[str]":
    """For each value of `key`, how many runs overlapped at the worst moment."""
    edges = sorted(edge for run in runs for edge in ((run["began"], 1, run[key]), (run["ended"], -1, run[key])))
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for _, change, value in edges:
        now[value] += change
        most[value] = max(most[value], now[value])
    return most
