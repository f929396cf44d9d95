"""Removing and pinning recovery points over HTTP: what is refused at once, and what becomes a job."""

import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import RecoveryPoint
from service.model.lifecycle import PointState
from tests.scenes.repositories import add_repository, add_sealed, id_of_point

FULL, INC = id_of_point("full"), id_of_point("inc")


@pytest.fixture
def nas(api: TestClient, sqlite_database: Database) -> str:
    """With a full point of db1 and an increment."""
    with sqlite_database.write() as session:
        repository_id = add_repository(session).id
        add_sealed(session, "full", repository_id)
        add_sealed(session, "inc", repository_id, parent="full", nights=1)
        return repository_id


def test_a_point_is_removed_by_a_job_that_locks_its_repository(api: TestClient, nas: str) -> None:
    answer = api.delete(f"/api/v1/recovery-points/{INC}")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["domain"], job["host"]) == ("prune", None, "hv1")
    assert (job["request"]["recovery_points"], job["request"]["repository"]) == ([INC], nas)
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"


def test_a_point_on_which_another_stands_is_refused_with_its_name(api: TestClient, nas: str) -> None:
    answer = api.delete(f"/api/v1/recovery-points/{FULL}")
    assert (answer.status_code, answer.json()["code"], answer.json()["facts"]["needed_by"]) == (409, "point_needed", [INC])


def test_with_needing_removes_both(api: TestClient, nas: str) -> None:
    answer = api.delete(f"/api/v1/recovery-points/{FULL}?with_needing=true")
    assert (answer.status_code, answer.json()["request"]["with_needing"]) == (202, True)


def test_with_merge_what_stands_on_the_point_stays_and_takes_over(api: TestClient, nas: str) -> None:
    answer = api.delete(f"/api/v1/recovery-points/{FULL}?merge=true")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["host"], job["request"]["repository"]) == ("merge", "hv1", nas)
    assert (job["request"]["recovery_points"], job["request"]["remove"]) == ([FULL], True)


def test_what_stands_on_a_point_is_not_both_removed_and_kept(api: TestClient, nas: str) -> None:
    answer = api.delete(f"/api/v1/recovery-points/{FULL}?merge=true&with_needing=true")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_a_merge_that_removes_nothing_is_a_job_of_its_own(api: TestClient, nas: str) -> None:
    answer = api.post("/api/v1/jobs", json={"kind": "merge", "recovery_points": [FULL]})
    assert (answer.status_code, answer.json()["request"]["remove"]) == (202, False)


def test_nothing_is_merged_into_a_point_that_is_damaged(api: TestClient, sqlite_database: Database, nas: str) -> None:
    with sqlite_database.write() as session:
        session.execute(update(RecoveryPoint).where(RecoveryPoint.id == INC).values(state=PointState.damaged.value))
    answer = api.delete(f"/api/v1/recovery-points/{FULL}?merge=true")
    assert (answer.status_code, answer.json()["code"]) == (409, "point_damaged")


def test_a_pinned_point_is_not_removed_by_a_merge(api: TestClient, nas: str) -> None:
    api.patch(f"/api/v1/recovery-points/{FULL}", json={"pinned": True})
    answer = api.delete(f"/api/v1/recovery-points/{FULL}?merge=true")
    assert (answer.status_code, answer.json()["code"]) == (409, "point_pinned")


def test_several_points_are_one_job(api: TestClient, nas: str) -> None:
    answer = api.post("/api/v1/jobs", json={"kind": "prune", "recovery_points": [FULL, INC]})
    assert (answer.status_code, answer.json()["request"]["recovery_points"]) == (202, [FULL, INC])


def test_points_of_two_repositories_are_not_one_job(api: TestClient, sqlite_database: Database, nas: str) -> None:
    with sqlite_database.write() as session:
        add_sealed(session, "other", add_repository(session, "tape").id)
    answer = api.post("/api/v1/jobs", json={"kind": "prune", "recovery_points": [INC, id_of_point("other")]})
    assert (answer.status_code, answer.json()["code"]) == (409, "points_apart")


def test_a_point_that_a_waiting_restore_needs_is_refused(api: TestClient, nas: str) -> None:
    body = {"kind": "restore", "recovery_point": INC, "mode": "files", "folder": "/srv/out"}
    restore = api.post("/api/v1/jobs", json=body).json()["id"]
    answer = api.delete(f"/api/v1/recovery-points/{INC}")
    assert (answer.status_code, answer.json()["code"], answer.json()["facts"]["jobs"]) == (409, "point_in_use", [restore])


@pytest.mark.parametrize("body", [{"kind": "restore", "mode": "files", "folder": "/srv/out"}, {"kind": "verify"}])
def test_a_point_that_leaves_is_not_begun_to_be_used(api: TestClient, sqlite_database: Database, nas: str, body: dict[str, str]) -> None:
    with sqlite_database.write() as session:
        session.execute(update(RecoveryPoint).where(RecoveryPoint.id == INC).values(state=PointState.leaving.value))
    answer = api.post("/api/v1/jobs", json={**body, "recovery_point": INC})
    assert (answer.status_code, answer.json()["code"]) == (409, "point_leaving")


def test_a_pinned_point_is_refused_until_it_is_unpinned(api: TestClient, nas: str) -> None:
    pinned = api.patch(f"/api/v1/recovery-points/{INC}", json={"pinned": True})
    assert (pinned.status_code, pinned.json()["pinned"]) == (200, True)
    assert api.get(f"/api/v1/recovery-points/{INC}").json()["pinned"] is True
    answer = api.delete(f"/api/v1/recovery-points/{INC}")
    assert (answer.status_code, answer.json()["code"]) == (409, "point_pinned")
    api.patch(f"/api/v1/recovery-points/{INC}", json={"pinned": False})
    assert api.delete(f"/api/v1/recovery-points/{INC}").status_code == 202


def test_a_retry_asks_only_for_what_is_still_there(api: TestClient, sqlite_database: Database, nas: str) -> None:
    job = api.post("/api/v1/jobs", json={"kind": "prune", "recovery_points": [FULL, INC]}).json()["id"]
    api.post(f"/api/v1/jobs/{job}/cancel")
    with sqlite_database.write() as session:
        session.execute(delete(RecoveryPoint).where(RecoveryPoint.id == INC))
    again = api.post(f"/api/v1/jobs/{job}/retry")
    assert (again.status_code, again.json()["request"]["recovery_points"]) == (202, [FULL])


def test_an_unknown_point_is_not_found(api: TestClient, nas: str) -> None:
    for call in (api.delete, lambda path: api.patch(path, json={"pinned": True})):
        assert call(f"/api/v1/recovery-points/{id_of_point('nowhere')}").status_code == 404
