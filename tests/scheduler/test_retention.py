"""Retention by itself: its jobs are made when they are due, each once however many processes look, and each says by which rule."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db.engine import Database, database_now
from service.db.tables import Job, RecoveryPoint, Repository, RetentionLook
from service.model.lifecycle import JobState
from service.model.repository import RepositoryState
from service.model.schedule import JUMP_BELIEVED_S
from service.records import points, policies, queue, retention_looks
from service.records.queue import NewJob
from service.records.retention_looks import AGAIN, EVERY
from service.scheduler.loop import Loop
from service.scheduler.retention import RetentionLooks
from tests.api.world import add_host
from tests.scenes.queue import claimed, finish
from tests.scenes.repositories import add_sealed, id_of_point
from tests.scenes.retained import NIGHTLY, a_policy, add_nights, add_policy, add_ready_repository

MINUTE = timedelta(minutes=1)


class Nas:
    """A repository with three nights of a track that keeps two."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.write() as session:
            add_host(session)
            queue.ensure_slots(session, "host:hv1:maintenance", 2)
            self.id = add_ready_repository(session)
            add_policy(session, retention={"keep_last": 2})
            add_nights(session, self.id, "a", "b", "c")
        self.clock = [1000.0]
        self.woken = 0

    def loop(self) -> RetentionLooks:
        return RetentionLooks(self.database, self._wake, lambda: self.clock[0])

    def _wake(self) -> None:
        self.woken += 1

    def look(self) -> int:
        return self.loop().look()

    def add(self, *names: str, first: int = 0) -> None:
        """Points that a backup has made now."""
        with self.database.write() as session:
            add_nights(session, self.id, *names, first=first)
            new = [id_of_point(name) for name in names]
            session.execute(update(RecoveryPoint).where(RecoveryPoint.id.in_(new)).values(created_at=datetime.now(UTC)))

    def pass_time(self, by: timedelta) -> None:
        """As if the last look were longer ago."""
        with self.database.write() as session:
            look = session.scalars(select(RetentionLook)).one()
            look.looked_at -= by
            look.due_at -= by
            for point in session.scalars(select(RecoveryPoint)):
                point.created_at -= by

    def jobs(self) -> list[Job]:
        """Oldest first."""
        with self.database.read() as session:
            return list(session.scalars(select(Job).where(Job.kind == "prune").order_by(Job.created_at, Job.id)))

    def asked(self) -> list[list[str]]:
        """The names of the points of each job."""
        names = {id_of_point(name): name for name in "abcdefgh"}
        return [[names[point] for point in job.request["recovery_points"]] for job in self.jobs()]

    def end_job(self) -> None:
        """Its points are gone."""
        claim = claimed(self.database)
        finish(self.database, claim, JobState.succeeded)
        with self.database.write() as session:
            removed = session.get_one(Job, claim.job_id).request["recovery_points"]
            session.execute(RecoveryPoint.__table__.delete().where(RecoveryPoint.id.in_(removed)))  # type: ignore[attr-defined]  # a table

    def repository_is(self, state: RepositoryState) -> None:
        with self.database.write() as session:
            session.execute(update(Repository).values(state=state.value))


@pytest.fixture
def nas(database: Database) -> Nas:
    return Nas(database)


def waiting_verify(nas: Nas, point: str) -> str:
    point_id = id_of_point(point)
    new = NewJob("verify", None, None, "hv1", {"kind": "verify", "recovery_point": point_id}, {}, point_id=point_id, repository_id=nas.id)
    with nas.database.write() as session:
        return queue.enqueue(session, new).job_id


# --- what is asked for ------------------------------------------------------------------------------


def test_a_look_asks_for_what_goes_and_says_by_which_rule(nas: Nas) -> None:
    assert (nas.look(), nas.woken, nas.asked()) == (1, 1, [["a"]])
    (job,) = nas.jobs()
    assert (job.state, job.host_id, job.repository_id, job.token_id) == ("queued", "hv1", nas.id, None)
    why = {"policy": "production", "track": "nightly", "reasons": [{"code": "too_old", "facts": {}}]}
    assert job.request["retention"] == {id_of_point("a"): why}


def test_what_no_policy_asked_for_is_left_alone(nas: Nas) -> None:
    with nas.database.write() as session:
        add_nights(session, nas.id, "f", "g", "h", origin=None, first=20)
    nas.look()
    assert nas.asked() == [["a"]]


def test_where_nothing_goes_nothing_is_asked_for(nas: Nas) -> None:
    with nas.database.write() as session:
        points.set_pinned(session, id_of_point("a"), pinned=True)
    assert (nas.look(), nas.woken, nas.asked()) == (0, 0, [])


def test_a_base_that_a_kept_point_needs_is_not_asked_for(nas: Nas) -> None:
    with nas.database.write() as session:
        add_sealed(session, "inc", nas.id, parent="a", nights=9, labels=NIGHTLY.as_labels())
    nas.look()
    assert nas.asked() == [["b"]]


def test_points_come_after_those_that_stand_on_them(nas: Nas) -> None:
    with nas.database.write() as session:
        add_sealed(session, "d", nas.id, parent="a", nights=-1, labels=NIGHTLY.as_labels())
        add_sealed(session, "e", nas.id, parent="d", nights=-2, labels=NIGHTLY.as_labels())
    nas.look()
    assert nas.asked() == [["e", "d", "a"]]


def test_one_job_has_a_bounded_number_of_points_and_the_next_waits_for_its_end(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_looks, "MAX_POINTS", 2)
    nas.add("d", "e", "f", first=3)
    nas.look()
    assert [len(names) for names in nas.asked()] == [2]
    assert (nas.look(), len(nas.jobs())) == (0, 1)
    nas.end_job()
    assert nas.look() == 1
    assert sorted(name for names in nas.asked() for name in names) == ["a", "b", "c", "d"]


# --- when -------------------------------------------------------------------------------------------


def test_a_repository_is_looked_at_after_a_new_point_and_at_least_once_a_day(nas: Nas) -> None:
    nas.look()
    nas.end_job()
    assert nas.look() == 0
    nas.add("d", first=3)
    assert (nas.look(), nas.asked()) == (1, [["a"], ["b"]])
    nas.end_job()
    with nas.database.write() as session:
        # Nothing came, and nothing but the time tells that the policy was changed.
        session.execute(update(RecoveryPoint).where(RecoveryPoint.id == id_of_point("c")).values(pinned=True))
        add_nights(session, nas.id, "e", "f", first=5)
    nas.pass_time(EVERY - MINUTE)
    assert nas.look() == 0
    nas.pass_time(2 * MINUTE)
    assert (nas.look(), nas.asked()[-1]) == (1, ["d"])


def test_only_the_domains_with_a_new_point_are_looked_at_between_two_looks_of_the_day(nas: Nas) -> None:
    """A policy that was changed meanwhile counts at once where a point comes, and elsewhere on the next day."""
    with nas.database.write() as session:
        add_nights(session, nas.id, "e", "f", domain_id="d2", domain_name="db2")
    nas.look()
    nas.end_job()
    with nas.database.write() as session:
        row = policies.get(session, "production")
        policies.change(session, row, a_policy(retention={"keep_last": 1}), database_now(session))
    nas.add("d", first=3)
    nas.look()
    assert [sorted(names) for names in nas.asked()[1:]] == [["b", "c"]]
    nas.end_job()
    nas.pass_time(EVERY)
    nas.look()
    assert nas.asked()[2:] == [["e"]]


def test_what_a_waiting_job_reads_is_not_asked_for_and_soon_looked_at_again(nas: Nas) -> None:
    reader = waiting_verify(nas, "a")
    assert (nas.look(), nas.asked()) == (0, [])
    with nas.database.write() as session:
        queue.request_cancel(session, reader)
    assert nas.look() == 0
    nas.pass_time(AGAIN)
    assert (nas.look(), nas.asked()) == (1, [["a"]])


@pytest.mark.parametrize("state", [RepositoryState.gone, RepositoryState.read_only, RepositoryState.unknown])
def test_a_repository_that_cannot_be_written_is_looked_at_when_it_can(nas: Nas, state: RepositoryState) -> None:
    nas.repository_is(state)
    assert (nas.look(), nas.asked()) == (0, [])
    nas.repository_is(RepositoryState.full)
    assert nas.look() == 1


def test_a_look_that_a_clock_ahead_has_dated_delays_nothing(nas: Nas) -> None:
    with nas.database.write() as session:
        then = datetime.now(UTC) + timedelta(days=3)
        session.add(RetentionLook(repository_id=nas.id, looked_at=then, due_at=then + EVERY))
    assert nas.look() == 1


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400)])
def test_a_clock_that_has_jumped_is_believed_hours_later(nas: Nas, jump: timedelta) -> None:
    loop = nas.loop()
    with nas.database.write() as session:
        then = datetime.now(UTC) - jump
        session.add(RetentionLook(repository_id=nas.id, looked_at=then, due_at=then + EVERY))
    assert loop.look() == 0
    nas.clock[0] += JUMP_BELIEVED_S - 1
    assert loop.look() == 0
    nas.clock[0] += 2
    assert loop.look() == 1


# --- many processes ---------------------------------------------------------------------------------


def test_of_many_processes_that_look_at_once_one_makes_the_job(nas: Nas) -> None:
    together, made = threading.Barrier(8), []

    def look() -> None:
        loop = nas.loop()
        together.wait()
        made.append(loop.look())

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(made), nas.asked()) == ([0] * 7 + [1], [["a"]])


def test_a_look_that_another_process_has_made_meanwhile_counts_for_nothing(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = retention_looks.plan

    def planned_twice(*arguments: Any) -> Any:
        monkeypatch.setattr(retention_looks, "plan", plan)
        chosen = plan(*arguments)
        assert nas.look() == 1
        nas.end_job()
        return chosen

    monkeypatch.setattr(retention_looks, "plan", planned_twice)
    assert (nas.look(), nas.asked()) == (0, [["a"]])


def test_a_repository_that_is_forgotten_meanwhile_is_no_fault(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = retention_looks.plan

    def forgotten_meanwhile(*arguments: Any) -> Any:
        chosen = plan(*arguments)
        with nas.database.write() as session:
            points.forget_of(session, nas.id)
            session.delete(session.get_one(Repository, nas.id))
        return chosen

    monkeypatch.setattr(retention_looks, "plan", forgotten_meanwhile)
    assert (nas.look(), nas.asked()) == (0, [])


def test_a_service_that_starts_looks_by_itself(nas: Nas) -> None:
    looked = threading.Event()
    loop = Loop.every(60.0, "retention", RetentionLooks(nas.database, looked.set).look, threading.Event())
    loop.start()
    assert looked.wait(60)
    loop.stop()
    assert nas.asked() == [["a"]]
