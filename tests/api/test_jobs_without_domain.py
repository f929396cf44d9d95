"""A job that is not about a domain is read, listed, explained, cancelled and tried again like every other one."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import Job
from service.model import requests
from service.model.kinds import Lane, Locks
from tests.api.world import add_job
from tests.scenes.kinds import add_kind


@pytest.fixture(autouse=True)
def _kind(monkeypatch: pytest.MonkeyPatch) -> None:
    add_kind(monkeypatch, "carry", Lane.transfer, Locks.point, attempts=2)


def a_transfer(database: Database, state: str, **columns: Any) -> str:
    about: dict[str, Any] = {"domain_id": None, "domain_name": None, "lock_key": "point:p1", "repository_id": "r1"}
    with database.write() as session:
        return add_job(session, kind="carry", state=state, request={"kind": "carry", "to": "elsewhere"}, **(about | columns))


def test_it_is_read_listed_and_explained(api_on_both: TestClient, database: Database) -> None:
    job_id = a_transfer(database, "succeeded")
    job = api_on_both.get(f"/api/v1/jobs/{job_id}").json()
    assert (job["kind"], job["domain"], job["host"]) == ("carry", None, "hv1")
    listed = api_on_both.get("/api/v1/jobs?host=hv1").json()["items"]
    assert [each["id"] for each in listed] == [job_id]
    explained = api_on_both.get(f"/api/v1/jobs/{job_id}/explain").json()
    assert "carry" in explained["summary"]


@pytest.mark.parametrize(("state", "then"), [("queued", "cancelled"), ("running", "running")])
def test_it_is_cancelled(api: TestClient, sqlite_database: Database, state: str, then: str) -> None:
    job = api.post(f"/api/v1/jobs/{a_transfer(sqlite_database, state)}/cancel").json()
    assert (job["state"], job["cancel_requested"]) == (then, state == "running")


def test_a_retry_locks_and_reaches_the_same_on_the_same_host(api_on_both: TestClient, database: Database) -> None:
    job_id = a_transfer(database, "failed", host_id="hv2")
    new = api_on_both.post(f"/api/v1/jobs/{job_id}/retry").json()
    assert (new["state"], new["retry_of"], new["host"], new["request"]["to"]) == ("queued", job_id, "hv2", "elsewhere")
    with database.read() as session:
        row = session.get_one(Job, new["id"])
    assert (row.lock_key, row.repository_id, row.max_attempts) == ("point:p1", "r1", 2)


@pytest.mark.parametrize("newer", [{"kind": "defrost"}, {"request_version": requests.VERSION + 1}], ids=["kind", "version"])
def test_a_job_of_a_newer_version_is_not_tried_again_by_an_older_one(
    api: TestClient, sqlite_database: Database, newer: dict[str, Any]
) -> None:
    with sqlite_database.write() as session:
        job_id = add_job(session, state="failed", **newer)
    answer = api.post(f"/api/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "retry_refused")
