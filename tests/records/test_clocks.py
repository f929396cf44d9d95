"""One clock counts, the database's; and what a clock that was ahead has written stops nothing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from service.db.engine import Database
from service.db.tables import Host, Job
from service.records import freeze_lease, queue
from service.worker.publishing import Inventory
from tests.fakes import FakeDisk, FakeDomain, FakeHost
from tests.scenes.host import FREEZE, Scene
from tests.scenes.orders import a_snapshot, a_thaw
from tests.scenes.queue import add, allow, claimed, try_to_claim
from tests.scenes.registered_hosts import register

AHEAD = timedelta(hours=2)


def _added_by_a_clock_ahead(database: Database, order: queue.NewJob) -> str:
    with database.write() as session:
        return queue.enqueue(session, order, now=datetime.now(UTC) + AHEAD).job_id


@pytest.mark.parametrize("pause_s", [0.0, 600.0])
def test_a_job_of_a_clock_that_was_ahead_runs_now(database: Database, pause_s: float) -> None:
    allow(database, "host:hv1:quick", 4)
    job_id = _added_by_a_clock_ahead(database, a_snapshot(pause_s=pause_s))
    assert claimed(database).job_id == job_id


def test_a_thaw_of_a_clock_that_was_ahead_runs_now(database: Database) -> None:
    job_id = _added_by_a_clock_ahead(database, a_thaw())
    assert claimed(database).job_id == job_id


def test_a_clock_that_is_ahead_a_little_stops_nothing(database: Database) -> None:
    allow(database, "host:hv1:quick", 4)
    with database.write() as session:
        job_id = queue.enqueue(session, a_snapshot(), now=datetime.now(UTC) + timedelta(seconds=5)).job_id
    assert claimed(database).job_id == job_id


def test_a_pause_by_the_right_clock_is_waited_for(database: Database) -> None:
    allow(database, "host:hv1:quick", 4)
    add(database, a_snapshot(pause_s=600))
    assert try_to_claim(database) is None


def test_a_lease_of_a_clock_that_was_ahead_is_not_waited_for(database: Database) -> None:
    allow(database, "host:hv1:quick", 4)
    job_id = add(database, a_snapshot())
    claimed(database)
    with database.write() as session:
        session.execute(update(Job).values(lease_until=datetime.now(UTC) + AHEAD))
        assert queue.release_expired(session, "hv1", longest_s=60) == [job_id]


def test_a_lease_in_its_time_is_left_alone(database: Database) -> None:
    allow(database, "host:hv1:quick", 4)
    add(database, a_snapshot())
    claimed(database)
    with database.write() as session:
        assert queue.release_expired(session, "hv1", longest_s=60) == []


def test_a_host_is_dated_by_the_clock_of_the_database(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_database = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    monkeypatch.setattr("service.worker.publishing.database_now", lambda _session: of_the_database)
    inventory = Inventory(sqlite_database, FakeHost(FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])), "hv1")
    inventory.publish(frozenset())
    with sqlite_database.read() as session:
        host = session.get_one(Host, "hv1")
    assert (host.started_at, host.last_seen, host.inventory_at) == (of_the_database,) * 3


def test_a_report_is_dated_by_the_clock_of_the_database(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_database = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    registration = register(sqlite_database)
    monkeypatch.setattr("service.worker.registration.database_now", lambda _session: of_the_database)
    with sqlite_database.write() as session:
        assert registration.report(session)
        assert session.get_one(Host, "hv1").last_seen == of_the_database


def test_a_window_is_dated_by_the_clock_of_the_database(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_database = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    monkeypatch.setattr("service.jobs.run.database_now", lambda _session: of_the_database)
    scene = Scene(sqlite_database, tmp_path)
    seen: list[datetime] = []

    def look() -> None:
        with sqlite_database.read() as session:
            seen.extend(window.since for window in freeze_lease.open_windows(session))

    scene.domain.when_next(FREEZE, look)
    scene.run()
    assert seen == [of_the_database]
