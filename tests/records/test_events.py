"""Events: each move leaves one, and a reader that remembers the last one misses nothing."""

import random
import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, select, update

from service.db.base import table_of
from service.db.engine import Database, database_now
from service.db.tables import Event, Job, RecoveryPoint
from service.errors import LeaseLost
from service.model.lifecycle import JobState, PointState
from service.records import events, points, queue
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import add, allow, claimed, everything_expires, finish, job_of, resolve

WRITERS = 8
TRANSACTIONS = 25


@pytest.fixture(autouse=True)
def _two_jobs_at_once_on_hv1(database: Database) -> None:
    allow(database, "host:hv1:quick", 2)


def read(database: Database, cursor: int = 0, limit: int = 1000) -> list[Event]:
    with database.read() as session:
        return events.after(session, cursor, limit)


def moves(database: Database, job_id: str) -> list[tuple[str | None, str]]:
    return [(event.moved_from, event.moved_to) for event in read(database) if event.job_id == job_id]


# --- writing --------------------------------------------------------------------------------------


def test_each_move_of_a_job_leaves_an_event(database: Database) -> None:
    job_id = add(database, a_snapshot())
    claimed(database)
    everything_expires(database)
    resolve(database, job_id, JobState.queued)
    finish(database, claimed(database), JobState.failed)
    assert moves(database, job_id) == [
        (None, "queued"),
        ("queued", "running"),
        ("running", "interrupted"),
        ("interrupted", "queued"),
        ("queued", "running"),
        ("running", "failed"),
    ]


def test_an_event_says_what_moved_when_and_with_which_facts(database: Database) -> None:
    job_id = add(database, a_snapshot("db1"))
    claim = claimed(database)
    with database.write() as session:
        values = {"verdict": "none", "error": {"code": "agent_not_responding", "title": "…"}}
        queue.finish(session, job_id, claim.lease_token, JobState.failed, values)
    last = read(database)[-1]
    assert (last.kind, last.job_id, last.job_kind, last.point_id) == ("job", job_id, "snapshot", None)
    assert (last.domain_id, last.domain_name, last.host_id) == ("id-of-db1", "db1", "hv1")
    assert last.at == job_of(database, job_id).finished_at
    assert last.facts == {"verdict": "none", "error": "agent_not_responding"}


def test_jobs_that_move_together_leave_an_event_each(database: Database) -> None:
    waiting = {add(database, a_snapshot(name)) for name in ("a", "b", "c")}
    with database.write() as session:
        assert set(queue.cancel_queued(session, "hv1", {"code": "host_forgotten"})) == waiting
    cancelled = [event for event in read(database) if event.moved_to == "cancelled"]
    assert {event.job_id for event in cancelled} == waiting
    assert {event.domain_name for event in cancelled} == {"a", "b", "c"}


def test_a_move_that_is_taken_back_leaves_no_event(database: Database) -> None:
    add(database, a_snapshot())
    before = read(database)
    with database.write() as session:
        assert queue.claim(session, "hv1", "me", 60) is not None
        session.rollback()
    assert [event.id for event in read(database)] == [event.id for event in before]


def test_whoever_lost_the_lease_leaves_no_event(database: Database) -> None:
    add(database, a_snapshot())
    claim = claimed(database)
    everything_expires(database)
    before = read(database)
    with pytest.raises(LeaseLost):
        finish(database, claim)
    assert [event.id for event in read(database)] == [event.id for event in before]


def test_a_wish_to_cancel_a_running_job_is_no_move(database: Database) -> None:
    job_id = add(database, a_snapshot())
    claimed(database)
    with database.write() as session:
        queue.request_cancel(session, job_id)
    assert moves(database, job_id) == [(None, "queued"), ("queued", "running")]


@pytest.mark.parametrize("to", [JobState.succeeded, JobState.interrupted, JobState.queued])
def test_a_move_that_the_table_does_not_allow_is_refused(database: Database, to: JobState) -> None:
    add(database, a_snapshot())
    with pytest.raises(ValueError, match=to.value), database.write() as session:
        queue.move(session, update(table_of(Job)), JobState.queued, to, now=database_now(session))


# --- reading --------------------------------------------------------------------------------------


def test_a_reader_goes_on_where_it_stopped(database: Database) -> None:
    ids = [add(database, a_snapshot(str(number))) for number in range(5)]
    first = read(database, limit=2)
    rest = read(database, first[-1].id)
    assert [event.job_id for event in (*first, *rest)] == ids
    assert read(database, rest[-1].id) == []


def test_an_id_is_given_once_although_its_row_is_gone(database: Database) -> None:
    add(database, a_snapshot("a"))
    last = read(database)[-1].id
    with database.write() as session:
        session.execute(delete(Event))
    add(database, a_snapshot("b"))
    assert [event.domain_name for event in read(database, last)] == ["b"]


def test_racing_writers_hide_no_event_from_a_reader(database: Database) -> None:
    """Each takes ids, waits for a chance amount of other work, and commits or not; the reader follows meanwhile."""
    writers = [threading.Thread(target=_write_some, args=(database, seed)) for seed in range(WRITERS)]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    while any(writer.is_alive() for writer in writers):
        seen += [event.id for event in read(database, seen[-1] if seen else 0, limit=7)]
    while rest := read(database, seen[-1] if seen else 0, limit=7):
        seen += [event.id for event in rest]
    with database.read() as session:
        assert seen == list(session.scalars(select(Event.id).order_by(Event.id)))
    assert len(seen) > WRITERS * TRANSACTIONS / 4


def _write_some(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(TRANSACTIONS):
        with database.write() as session:
            for _ in range(chance.randrange(1, 4)):
                queue.enqueue(session, a_snapshot(f"{seed}-{number}"))
                session.execute(select(Job.id).limit(chance.randrange(1, 200))).all()
            if chance.random() < 0.3:
                session.rollback()


# --- recovery points ------------------------------------------------------------------------------


def a_point(job_id: str) -> RecoveryPoint:
    named = {"kind": "snapshot", "domain_id": "id-of-db1", "domain_name": "db1", "host_id": "hv1"}
    return RecoveryPoint(id="point", job_id=job_id, point_in_time_at=datetime.now(UTC), verdict="filesystem", labels={}, disks=[], **named)


def test_a_point_that_is_taken_leaves_an_event(database: Database) -> None:
    job_id = add(database, a_snapshot())
    with database.write() as session:
        points.add(session, a_point(job_id), now := database_now(session))
    event = read(database)[-1]
    assert (event.kind, event.point_id, event.job_id, event.at) == ("recovery_point", "point", job_id, now)
    assert (event.moved_from, event.moved_to, event.facts) == (None, "taken", {"verdict": "filesystem"})
    with database.read() as session:
        point = session.get_one(RecoveryPoint, "point")
    assert (point.state, point.created_at) == ("taken", now)


def test_a_point_is_taken_once(database: Database) -> None:
    job_id = add(database, a_snapshot())
    with pytest.raises(ValueError, match=r"\btaken\b.*\btaken\b"), database.write() as session:
        points.add(session, a_point(job_id), database_now(session))
        points.move(session, update(table_of(RecoveryPoint)), PointState.taken, PointState.taken, now=database_now(session), facts={})
    assert [event.kind for event in read(database)] == ["job"]
