"""When old rows are removed, by which process, and how little the others notice."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.config import Settings
from service.db.engine import Database, database_now
from service.db.tables import DatabaseIdentity, Job
from service.model.lifecycle import JobState
from service.records import queue
from service.scheduler.loop import Loop
from service.scheduler.pruning import JUMP_BELIEVED_S, MAX_ROWS, MIN_ROWS, Due, Pace, Pruning, PruningLooks, due, take_turn
from tests.scenes.aged import add_ended, job_ids
from tests.scenes.orders import a_snapshot

YEAR = 366


def _settings() -> Settings:
    return Settings(state_dir=Path("/nowhere"))


def _looks(database: Database, loop: PruningLooks) -> set[str]:
    """One look of a loop; the jobs that are left."""
    loop.look()
    return job_ids(database)


def _pruned_at(database: Database, when: datetime | None) -> None:
    with database.write() as session:
        session.execute(update(DatabaseIdentity).values(pruned_at=when))


def _add_old(database: Database) -> str:
    with database.write() as session:
        return add_ended(session, YEAR)


def test_a_service_that_starts_prunes_by_itself(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    run = Pruning.run

    def noted(pruning: Pruning, all_due: list[Due]) -> dict[str, int]:
        removed = run(pruning, all_due)
        looked.set()
        return removed

    monkeypatch.setattr(Pruning, "run", noted)
    _add_old(database)
    loop = Loop.every(60.0, "pruning", PruningLooks(_settings(), database).look, threading.Event())
    loop.start()
    assert looked.wait(60)
    loop.stop()
    assert job_ids(database) == set()


def test_once_an_hour_one_of_all_processes_prunes(database: Database) -> None:
    loops = [PruningLooks(_settings(), database) for _ in range(3)]
    _add_old(database)
    assert _looks(database, loops[0]) == set()
    second = _add_old(database)
    assert [_looks(database, loop) for loop in loops] == [{second}] * 3
    _pruned_at(database, datetime.now(UTC) - timedelta(minutes=61))
    assert _looks(database, loops[2]) == set()


def test_the_turn_is_given_to_one_of_those_who_ask_at_once(database: Database) -> None:
    together, given = threading.Barrier(8), []

    def ask() -> None:
        together.wait()
        with database.write() as session:
            given.append(take_turn(session))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == [False] * 7 + [True]


def test_a_turn_that_a_clock_ahead_has_dated_stops_nothing(database: Database) -> None:
    _pruned_at(database, datetime.now(UTC) + timedelta(days=1))
    _add_old(database)
    assert _looks(database, PruningLooks(_settings(), database)) == set()


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400)])
def test_a_clock_that_has_jumped_is_believed_hours_later(database: Database, jump: timedelta) -> None:
    """An hour with a clock a year ahead must not cost a year of the record."""
    clock = [1000.0]
    _pruned_at(database, datetime.now(UTC) - jump)
    old = _add_old(database)
    loop = PruningLooks(_settings(), database, lambda: clock[0])
    assert _looks(database, loop) == {old}
    clock[0] += JUMP_BELIEVED_S - 1
    assert _looks(database, loop) == {old}
    clock[0] += 2
    assert _looks(database, loop) == set()


def test_a_clock_that_was_put_right_again_is_believed_at_once(database: Database) -> None:
    _pruned_at(database, datetime.now(UTC) - timedelta(days=400))
    old = _add_old(database)
    loop = PruningLooks(_settings(), database)
    assert _looks(database, loop) == {old}
    _pruned_at(database, datetime.now(UTC) - timedelta(hours=2))
    assert _looks(database, loop) == set()


def test_transactions_shrink_when_they_take_long_and_grow_while_they_do_not() -> None:
    pace = Pace()
    sizes = [pace.rows]
    for took_s in (0.001, 0.001, 0.005, 0.03, 0.03):
        pace.note(took_s)
        sizes.append(pace.rows)
    assert [size // sizes[0] for size in sizes] == [1, 2, 4, 4, 2, 1]
    for _ in range(20):
        pace.note(1.0)
    assert pace.rows == MIN_ROWS
    for _ in range(20):
        pace.note(0.0)
    assert pace.rows == MAX_ROWS


def test_jobs_are_created_claimed_and_finished_while_old_ones_are_removed(database: Database) -> None:
    with database.write() as session:
        queue.ensure_slots(session, "host:hv1:quick", 4)
        for _ in range(300):
            add_ended(session, YEAR, labels={"plan": "nightly"})
        all_due = due(_settings(), database_now(session))
    removed: dict[str, int] = {}
    made: list[str] = []
    over = threading.Event()

    def create() -> None:
        while not over.is_set():
            with database.write() as session:
                made.append(queue.enqueue(session, a_snapshot(f"db{len(made)}", labels={"plan": "nightly"})).job_id)

    def work() -> None:
        while not over.is_set():
            with database.write() as session:
                claim = queue.claim(session, "hv1", "me", 60)
            if claim is not None:
                with database.write() as session:
                    queue.finish(session, claim.job_id, claim.lease_token, JobState.succeeded, {"phase": None})

    def prune() -> None:
        removed.update(Pruning(database, threading.Event()).run(all_due))
        over.set()

    _together(create, work, work, prune)
    assert removed["jobs"] == 300
    assert job_ids(database) == set(made)
    with database.read() as session:
        assert session.scalars(select(Job.id).where(Job.state == "succeeded")).first() is not None


def _together(*work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def noting(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=noting, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []
