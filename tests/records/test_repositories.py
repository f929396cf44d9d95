"""Registered repositories: named once, found by id and name, and changed by what a worker saw."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select

from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint, Slot
from service.errors import RepositoryFull, RepositoryInUse, RepositoryTaken, RepositoryUnknown
from service.model.kinds import JobKind, Lane
from service.model.lifecycle import JobState
from service.model.repository import RepositoryState
from service.records import queue, repositories, slots
from service.records.new_job import NewJob
from service.records.repositories import Look
from tests.scenes.documents import stale_texts
from tests.scenes.queue import claimed, finish
from tests.scenes.repositories import DB1, add_repository, add_sealed

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def backup_to(repository_id: str) -> NewJob:
    request = {"kind": JobKind.backup.value, "domain": "db1", "repository": repository_id}
    return NewJob(JobKind.backup.value, DB1, "db1", "hv1", request, {}, repository_id=repository_id)


def test_a_repository_is_found_by_its_id_and_by_its_name(database: Database) -> None:
    with database.write() as session:
        added = add_repository(session).id
    with database.read() as session:
        assert repositories.get(session, added).id == repositories.get(session, "nas").id == added
        with pytest.raises(RepositoryUnknown):
            repositories.get(session, str(uuid4()))


def test_an_id_counts_before_a_name(database: Database) -> None:
    with database.write() as session:
        added = add_repository(session).id
        add_repository(session, name=added, path="/srv/other")
    with database.read() as session:
        assert repositories.get(session, added).path == "/srv/nas"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("nas", "/srv/other"),
        ("other", "/srv/nas"),
        ("other", "/srv/nas/"),
        ("other", "/srv//nas/."),
        ("other", "//srv/nas"),
    ],
)
def test_a_name_and_a_folder_are_registered_once(database: Database, name: str, path: str) -> None:
    with database.write() as session:
        add_repository(session)
    with pytest.raises(RepositoryTaken), database.write() as session:
        add_repository(session, name=name, path=path)
    with database.read() as session:
        assert len(repositories.list_all(session)) == 1


def test_another_host_may_have_another_folder_at_the_same_path(database: Database) -> None:
    with database.write() as session:
        add_repository(session)
        add_repository(session, name="other", path="/srv/nas", host_id="hv2")
    with database.read() as session:
        assert [each.name for each in repositories.of_host(session, "hv2")] == ["other"]


def test_a_look_says_what_is_wrong_and_keeps_the_numbers_that_it_did_not_see(database: Database) -> None:
    with database.write() as session:
        added = add_repository(session).id
        repositories.note_look(session, added, Look(RepositoryState.ready, None, 100, 1000, 1), NOW)
        error = RepositoryFull(path="/srv/nas", needed_bytes=None, free_bytes=0)
        repositories.note_look(session, added, Look(RepositoryState.full, error, free_bytes=0), NOW + timedelta(minutes=1))
    with database.read() as session:
        seen = repositories.get(session, added)
    assert (seen.state, seen.free_bytes, seen.total_bytes, seen.format_version) == ("full", 0, 1000, 1)
    assert seen.state_error is not None
    assert seen.state_error["code"] == RepositoryFull.code
    assert seen.looked_at == NOW + timedelta(minutes=1)


def test_a_wish_is_fulfilled_by_the_look_that_began_after_it_and_by_no_earlier_one(database: Database) -> None:
    with database.write() as session:
        added = add_repository(session).id
        repositories.ask_check(session, added, NOW)
        repositories.ask_check(session, added, NOW + timedelta(seconds=1))
        look = Look(RepositoryState.ready)
        assert repositories.note_look(session, added, look, NOW, asked_at=NOW).check_asked_at == NOW + timedelta(seconds=1)
        assert repositories.note_look(session, added, look, NOW, asked_at=NOW + timedelta(seconds=1)).check_asked_at is None


def test_an_import_is_noted_and_asked_for_no_more(database: Database) -> None:
    with database.write() as session:
        repositories.ask_import(session, add_repository(session).id, NOW)
        noted = repositories.note_import(session, "nas", {"added": 3}, NOW, asked_at=NOW)
    assert (noted.import_asked_at, noted.import_result, noted.imported_at) == (None, {"added": 3}, NOW)


def test_a_folder_that_was_a_repository_gives_its_id_and_nothing_loses_its_repository(database: Database) -> None:
    folder_id = str(uuid4())
    with database.write() as session:
        old = add_repository(session, max_transfers=1).id
        point_id = add_sealed(session, "full", old).id
        job_id = queue.enqueue(session, backup_to(old)).job_id
    with database.write() as session:
        assert repositories.adopt(session, old, folder_id).id == folder_id
        repositories.adopt(session, old, folder_id)
    with database.read() as session:
        assert repositories.get(session, old).id == repositories.get(session, "nas").id == folder_id
        assert session.get_one(RecoveryPoint, point_id).repository_id == folder_id
        assert session.get_one(Job, job_id).repository_id == folder_id
        lanes = set(session.scalars(select(Slot.resource)))
    assert slots.repository_lane(folder_id, Lane.transfer) in lanes
    assert slots.repository_lane(old, Lane.transfer) not in lanes
    assert stale_texts(database) == []


def test_two_repositories_never_get_one_id(database: Database) -> None:
    with database.write() as session:
        first, second = add_repository(session).id, add_repository(session, "other").id
    with pytest.raises(RepositoryTaken), database.write() as session:
        repositories.adopt(session, second, first)


def test_a_repository_with_a_limit_takes_no_more_transfers_than_that(database: Database) -> None:
    with database.write() as session:
        slots.ensure_lanes(session, "hv1", 4, 4)
        repository_id = add_repository(session, max_transfers=1).id
        for number in range(2):
            new = backup_to(repository_id)
            queue.enqueue(session, NewJob(new.kind, f"id-{number}", f"vm{number}", "hv1", new.request, {}, repository_id=repository_id))
    first = claimed(database)
    with database.write() as session:
        assert queue.claim(session, "hv1", "me", 60) is None
    finish(database, first)
    assert claimed(database).job_id != first.job_id


def test_a_repository_is_forgotten_when_nothing_needs_it(database: Database) -> None:
    with database.write() as session:
        repository_id = add_repository(session, max_transfers=1).id
        add_sealed(session, "full", repository_id)
        job_id = queue.enqueue(session, backup_to(repository_id)).job_id
    with pytest.raises(RepositoryInUse) as refused, database.write() as session:
        repositories.forget(session, "nas", forget_points=True)
    assert (refused.value.facts["points"], refused.value.facts["jobs"]) == (1, 1)
    with database.write() as session:
        assert queue.request_cancel(session, job_id) is JobState.cancelled
    with pytest.raises(RepositoryInUse), database.write() as session:
        repositories.forget(session, "nas")
    with database.write() as session:
        assert repositories.forget(session, "nas", forget_points=True)[1] == 1
    with database.read() as session:
        assert not list(session.scalars(select(RecoveryPoint)))
        assert not list(repositories.list_all(session))
        assert not list(session.scalars(select(Slot.resource).where(Slot.resource.startswith("repository:"))))
