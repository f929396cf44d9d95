"""The free space of a repository over time: one sample an hour, and the date at which it will be full."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from service.db.engine import Database
from service.db.tables import RepositorySample
from service.model.repository import RepositoryState
from service.records import free_space, repositories
from service.records.repositories import Look
from tests.scenes.promised import REPOSITORY, add_repository

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def registered(database: Database) -> Database:
    with database.write() as session:
        add_repository(session, reserve_bytes=1 << 30)
    return database


def samples(database: Database) -> list[tuple[datetime, int]]:
    with database.read() as session:
        return [(row.at, row.free_bytes) for row in session.scalars(select(RepositorySample).order_by(RepositorySample.at))]


def look(database: Database, at: datetime, free_bytes: int | None) -> None:
    with database.write() as session:
        repositories.note_look(session, REPOSITORY, Look(RepositoryState.ready, None, free_bytes), at)


def test_looks_leave_one_sample_an_hour(registered: Database) -> None:
    for minutes in (0, 1, 59, 60, 61, 119, 125):
        look(registered, NOW + timedelta(minutes=minutes), 1000 + minutes)
    assert [free for _, free in samples(registered)] == [1000, 1060, 1125]


def test_a_look_that_saw_no_free_space_leaves_none(registered: Database) -> None:
    look(registered, NOW, None)
    assert samples(registered) == []


def test_a_clock_that_was_ahead_does_not_end_the_samples(registered: Database) -> None:
    look(registered, NOW + timedelta(days=400), 1)
    look(registered, NOW, 2)
    assert samples(registered)[0] == (NOW, 2)


def test_the_date_counts_from_what_is_free_above_the_reserve(registered: Database) -> None:
    for hour in range(49):
        look(registered, NOW + hour * HOUR, (101 - hour) << 30)
    now = NOW + 48 * HOUR
    with registered.read() as session:
        found = free_space.full_dates(session, now)
    # 53 GiB are free, 1 GiB of them is kept, and each hour costs 1 GiB.
    assert found == {REPOSITORY: now + 52 * HOUR}


def test_a_repository_that_does_not_fill_up_has_no_date(registered: Database) -> None:
    for hour in range(49):
        look(registered, NOW + hour * HOUR, 100 << 30)
    with registered.read() as session:
        assert free_space.full_dates(session, NOW + 48 * HOUR) == {}
