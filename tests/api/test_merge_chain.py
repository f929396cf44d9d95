"""Removing points beside the disks over HTTP: only a merge ends them, and the job locks the domain."""

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from tests.api.world import DB1, add_job, add_recovery_point
from tests.scenes.repositories import add_repository, add_sealed, id_of_point


@pytest.fixture
def points(api: TestClient, sqlite_database: Database) -> list[str]:
    """Two points beside the disk of db1."""
    with sqlite_database.write() as session:
        job_id = add_job(session)
        return [add_recovery_point(session, job_id) for _ in range(2)]


def test_a_point_beside_the_disk_is_removed_by_a_merge_that_locks_its_domain(
    api: TestClient, sqlite_database: Database, points: list[str]
) -> None:
    answer = api.delete(f"/api/v1/recovery-points/{points[0]}?merge=true")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["domain"]["id"], job["host"]) == ("merge", DB1, "hv1")
    assert (job["request"]["recovery_points"], job["request"]["remove"], job["request"]["repository"]) == ([points[0]], True, "")
    with sqlite_database.read() as session:
        assert session.scalar(select(Job.lock_key).where(Job.id == job["id"])) == f"domain:{DB1}"


@pytest.mark.parametrize("body", [{"kind": "merge"}, {"kind": "prune"}], ids=str)
def test_nothing_else_ends_such_a_point(api: TestClient, points: list[str], body: dict[str, str]) -> None:
    answer = api.post("/api/v1/jobs", json={**body, "recovery_points": [points[0]]})
    assert (answer.status_code, answer.json()["code"], answer.json()["facts"]["point"]) == (409, "point_below_overlay", points[0])


def test_the_answer_to_a_plain_removal_says_how_it_is_done(api: TestClient, points: list[str]) -> None:
    answer = api.delete(f"/api/v1/recovery-points/{points[0]}")
    assert (answer.status_code, answer.json()["code"]) == (409, "point_below_overlay")
    assert f"/api/v1/recovery-points/{points[0]}?merge=true" in answer.json()["remedy"]


def test_several_points_of_one_domain_are_one_job(api: TestClient, points: list[str]) -> None:
    answer = api.post("/api/v1/jobs", json={"kind": "merge", "recovery_points": points, "remove": True})
    assert (answer.status_code, answer.json()["request"]["recovery_points"]) == (202, points)


def test_points_of_two_domains_are_not_one_job(api: TestClient, sqlite_database: Database, points: list[str]) -> None:
    with sqlite_database.write() as session:
        other = "9d3f8a10-0000-4000-8000-00000000000d"
        session.execute(update(table_of(RecoveryPoint)).where(table_of(RecoveryPoint).c.id == points[1]).values(domain_id=other))
    answer = api.post("/api/v1/jobs", json={"kind": "merge", "recovery_points": points, "remove": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "points_apart")


def test_a_point_in_a_repository_is_not_merged_by_the_same_job(api: TestClient, sqlite_database: Database, points: list[str]) -> None:
    with sqlite_database.write() as session:
        add_sealed(session, "full", add_repository(session).id)
    asked = [points[0], id_of_point("full")]
    answer = api.post("/api/v1/jobs", json={"kind": "merge", "recovery_points": asked, "remove": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "points_apart")


def test_a_pinned_point_is_refused(api: TestClient, points: list[str]) -> None:
    api.patch(f"/api/v1/recovery-points/{points[0]}", json={"pinned": True})
    answer = api.delete(f"/api/v1/recovery-points/{points[0]}?merge=true")
    assert (answer.status_code, answer.json()["code"]) == (409, "point_pinned")


def test_a_domain_that_is_not_there_any_more_is_told(api: TestClient, sqlite_database: Database, points: list[str]) -> None:
    with sqlite_database.write() as session:
        gone = "9d3f8a10-0000-4000-8000-00000000000e"
        session.execute(update(table_of(RecoveryPoint)).where(table_of(RecoveryPoint).c.id == points[0]).values(domain_id=gone))
    answer = api.delete(f"/api/v1/recovery-points/{points[0]}?merge=true")
    assert (answer.status_code, answer.json()["code"]) == (404, "domain_unknown")
