"""Recovery points: what can be restored."""

from datetime import timedelta
from uuid import uuid4

from starlette.testclient import TestClient

from service.db.engine import Database
from tests.api.world import DB1, NOW, WEB1, add_job, add_recovery_point


def test_a_recovery_point_is_answered_with_its_disks_and_its_job(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(session)
        point_id = add_recovery_point(session, job_id, labels={"plan": "nightly"}, size_bytes=5_000_000_000)

    assert api_on_both.get(f"/api/v1/recovery-points/{point_id}").json() == {
        "id": point_id,
        "job_id": job_id,
        "kind": "snapshot",
        "domain": {"id": DB1, "name": "db1"},
        "host": "hv1",
        "state": "taken",
        "created_at": "2026-03-01T12:00:00.000000Z",
        "point_in_time_at": "2026-03-01T12:00:00.000000Z",
        "verdict": "filesystem",
        "labels": {"plan": "nightly"},
        "pinned": False,
        "retained_until": None,
        "repository": None,
        "folder": None,
        "manifest_digest": None,
        "parents": [],
        "is_encrypted": False,
        "is_domain_controller": None,
        "disks": [{"target": "vda", "file": "/images/db1.qcow2", "format": "qcow2", "virtual_size": 1024}],
        "left_out": [],
        "proofs": [],
        "size_bytes": 5_000_000_000,
        "links": {"self": f"/api/v1/recovery-points/{point_id}", "job": f"/api/v1/jobs/{job_id}"},
    }


def test_a_point_that_does_not_exist_is_not_found(api: TestClient) -> None:
    answer = api.get(f"/api/v1/recovery-points/{uuid4()}")
    assert (answer.status_code, answer.json()["code"]) == (404, "recovery_point_not_found")


def test_filters_and_pages_work_as_for_jobs(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(session)
        points = [add_recovery_point(session, job_id, NOW - timedelta(hours=n)) for n in range(3)]
        web = add_recovery_point(
            session, job_id, NOW - timedelta(days=1), domain_id=WEB1, domain_name="web1", host_id="hv2", verdict="crash"
        )

    def ids(query: str) -> list[str]:
        return [point["id"] for point in api_on_both.get(f"/api/v1/recovery-points{query}").json()["items"]]

    assert ids("") == [*points, web]
    for query in ("?domain=web1", f"?domain={WEB1}", "?host=hv2", "?verdict=crash", "?until=2026-03-01T00:00:00Z"):
        assert ids(query) == [web]
    assert ids("?since=2026-03-01T11:00:00Z") == points[:2]
    cursor = api_on_both.get("/api/v1/recovery-points?limit=2").json()["next_cursor"]
    assert ids(f"?limit=2&cursor={cursor}") == [points[2], web]
