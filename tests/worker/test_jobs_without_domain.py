"""A transfer that is not about a domain, from the queue to its end: it locks a point or a repository, and waits in a lane of its own."""

from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.freeze.guard import NoGuards
from service.jobs.run import JobRun
from service.model.kinds import Lane, Locks
from service.records import forgotten_host, queue, slots
from service.records.event_log import as_line
from service.records.events import after
from service.records.queue import NewJob
from service.records.wake import Wake
from service.worker.returned_host import ReturnedHost
from service.worker.worker import Worker
from tests.scenes.deaths import story
from tests.scenes.host import HOST, Scene, error_of
from tests.scenes.kinds import Carries, add_kind
from tests.scenes.plant import wait_for
from tests.scenes.queue import add, job_of, slots_in_use, try_to_claim
from tests.scenes.registered_hosts import SILENCE_S, heard_ago, register

LOCKS = [Locks.point, Locks.repository]


class Station:
    """A host that runs transfers, and what is asked of it."""

    def __init__(self, scene: Scene, patch: pytest.MonkeyPatch) -> None:
        self.scene = scene
        self.carries = Carries()
        scene.handlers = {**scene.handlers, "carry": self.carries, "tidy": self.carries}
        scene.execution._handlers = scene.handlers
        add_kind(patch, "carry", Lane.transfer, Locks.point, attempts=2)
        add_kind(patch, "tidy", Lane.transfer, Locks.repository, attempts=2)
        with scene.database.write() as session:
            slots.ensure_lanes(session, HOST, 2, 4)
            slots.ensure_slots(session, "repository:r1:transfer", 1)

    def ask(self, locks: Locks, host: str = HOST) -> str:
        kind = "carry" if locks is Locks.point else "tidy"
        new = NewJob(kind, None, None, host, {"kind": kind, "to": "elsewhere"}, {"by": "test"}, point_id="p1", repository_id="r1")
        return add(self.scene.database, new)

    def die_in(self, run: JobRun) -> None:
        self.carries.dies = True
        with pytest.raises(SystemExit):
            self.scene.execution.execute(run)
        self.carries.dies = False
        self.scene.die_in(run)

    def job(self, job_id: str) -> Job:
        return job_of(self.scene.database, job_id)


@pytest.fixture
def station(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Station:
    return Station(Scene(database, tmp_path), monkeypatch)


@pytest.mark.parametrize("locks", LOCKS)
def test_it_runs_on_its_host_alone_and_gives_back_what_it_had(station: Station, locks: Locks) -> None:
    job_id = station.ask(locks)
    assert try_to_claim(station.scene.database, "hv2") is None
    run = station.scene.claim()
    assert slots_in_use(station.scene.database) == {f"host:{HOST}:transfer": [job_id], "repository:r1:transfer": [job_id]}
    station.scene.execution.execute(run)
    job = station.job(job_id)
    assert (job.state, job.error, job.domain_id, job.max_attempts) == ("succeeded", None, None, 2)
    assert slots_in_use(station.scene.database) == {}


@pytest.mark.parametrize("locks", LOCKS)
def test_a_lost_one_is_recovered_without_a_guest_and_tried_again(station: Station, locks: Locks) -> None:
    job_id = station.ask(locks)
    station.die_in(station.scene.claim())
    assert slots_in_use(station.scene.database) == {}
    station.scene.recovery().recover(job_id)
    assert station.job(job_id).state == "queued"
    assert [lost.guest for lost in station.carries.lost] == [None]

    station.die_in(station.scene.claim())
    station.scene.recovery().recover(job_id)
    job = station.job(job_id)
    assert (job.state, job.attempt, error_of(job)["code"]) == ("failed", 2, "worker_lost")


def test_a_running_one_is_cancelled_at_its_next_safe_point(station: Station) -> None:
    job_id = station.ask(Locks.point)
    run = station.scene.claim()
    with station.scene.database.write() as session:
        queue.request_cancel(session, job_id)
    run.cancel_requested.set()
    station.scene.execution.execute(run)
    assert (station.job(job_id).state, error_of(station.job(job_id))["code"]) == ("cancelled", "job_cancelled")


def test_a_lost_one_that_is_cancelled_is_not_tried_again(station: Station) -> None:
    job_id = station.ask(Locks.point)
    station.die_in(station.scene.claim())
    with station.scene.database.write() as session:
        queue.request_cancel(session, job_id)
    station.scene.recovery().recover(job_id)
    assert station.job(job_id).state == "cancelled"


def test_its_host_is_forgotten_and_comes_back(station: Station) -> None:
    scene, job_id, waiting = station.scene, station.ask(Locks.point), station.ask(Locks.repository)
    station.die_in(scene.claim())
    register(scene.database, HOST)
    heard_ago(scene.database, SILENCE_S + 5, HOST)
    with scene.database.write() as session:
        forgotten_host.forget(session, HOST)
    assert [(station.job(one).state, error_of(station.job(one))["code"]) for one in (job_id, waiting)] == [
        ("failed", "host_forgotten"),
        ("cancelled", "host_forgotten"),
    ]
    returned = ReturnedHost(scene.database, scene.host, HOST, None)
    assert returned.due() == [job_id]
    returned.look(job_id)
    assert "domain" in story(station.job(job_id))
    assert returned.due() == []


def test_its_events_can_be_read(station: Station) -> None:
    station.ask(Locks.repository)
    with station.scene.database.read() as session:
        (event,) = after(session, 0, 10)
    assert f"tidy on {HOST}: queued" in as_line(event)


def test_a_worker_runs_it_beside_a_snapshot(station: Station) -> None:
    scene = station.scene
    jobs = [station.ask(Locks.point), scene.ask()]
    worker = Worker(scene.settings, scene.database, scene.host, Wake(), NoGuards(), handlers=scene.handlers)
    worker.start()
    try:
        wait_for(lambda: all(station.job(job_id).finished_at for job_id in jobs), "the jobs to end")
    finally:
        worker.stop(5)
    assert [station.job(job_id).state for job_id in jobs] == ["succeeded", "succeeded"]
