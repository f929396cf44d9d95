"""Health, readiness, metrics, and how faults of the service and its database look from outside."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from starlette.testclient import TestClient

from service.api.metrics import FINISHED_JOBS
from service.app import create_api
from service.config import Settings
from service.db import engine as engine_module
from service.db.engine import Database, open_engine
from service.errors import JobNotFound
from service.records import ageing
from service.records.wake import Wake
from tests.api.world import NOW, add_job, add_recovery_point
from tests.scenes.aged import add_ended, ago


def test_an_unknown_path_and_an_unknown_method_are_problems_too(api: TestClient) -> None:
    path = api.get("/api/v2/jobs")
    method = api.put("/api/v1/jobs")

    assert (path.status_code, path.json()["code"], path.json()["instance"]) == (404, "path_not_found", "/api/v2/jobs")
    assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
    assert {path.headers["content-type"], method.headers["content-type"]} == {"application/problem+json"}
    assert method.headers["allow"] != ""


def test_a_problem_has_every_member_of_its_kind(api: TestClient) -> None:
    job_id = str(uuid4())
    assert api.get(f"/api/v1/jobs/{job_id}").json() == {
        **JobNotFound(job_id=job_id).as_document(),
        "type": "urn:stillpoint:problem:job_not_found",
        "status": 404,
        "code": "job_not_found",
        "facts": {"job_id": job_id},
        "instance": f"/api/v1/jobs/{job_id}",
    }


def test_a_fault_of_ours_is_a_500_that_tells_nothing_about_the_inside(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.engine.begin() as connection:
        connection.execute(text("UPDATE domains SET document = 'secret'"))
    answer = api.get("/api/v1/domains")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["facts"] == {}
    assert "Expecting value" not in answer.text
    assert "secret" not in answer.text


def test_it_is_healthy_and_ready(api_on_both: TestClient) -> None:
    assert (api_on_both.get("/healthz").json(), api_on_both.get("/readyz").json()) == ({"status": "ok"}, {"status": "ok"})


def test_it_is_not_ready_on_a_schema_of_another_version(api_on_both: TestClient, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    answer = api_on_both.get("/readyz")

    assert (answer.status_code, answer.json()["code"]) == (503, "schema_outdated")
    assert "`stillpoint migrate`" in answer.json()["remedy"]
    assert api_on_both.get("/healthz").status_code == 200


@pytest.fixture
def locked(api: TestClient, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Another process holds the whole database for itself, as a copy or a repair does; nobody waits 5 s for it in a test."""
    monkeypatch.setattr(engine_module, "SQLITE_BUSY_TIMEOUT_MS", 50)
    api.get("/api/v1/jobs")
    path = sqlite_database.engine.url.database
    assert path is not None
    sqlite_database.dispose()
    with sqlite3.connect(path, isolation_level=None) as other:
        # The API may be in the middle of a write of its own, such as that of readiness.
        other.execute("PRAGMA busy_timeout=10000")
        other.execute("BEGIN IMMEDIATE")
        yield other
        other.execute("ROLLBACK")
    other.close()


def test_a_locked_database_refuses_a_new_job_with_503_and_when_to_come_back(api: TestClient, locked: sqlite3.Connection) -> None:
    body = {"kind": "snapshot", "domain": "db1"}
    refused = api.post("/api/v1/jobs", json=body)
    locked.execute("ROLLBACK")
    accepted = api.post("/api/v1/jobs", json=body)
    locked.execute("BEGIN")

    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert refused.headers["retry-after"] == "2"
    # SQLite's own words.
    assert refused.json()["facts"] == {"reason": "database is locked"}
    assert accepted.status_code == 202


def test_reading_goes_on_while_another_process_writes(api: TestClient, locked: sqlite3.Connection) -> None:
    assert api.get("/api/v1/jobs").status_code == 200
    assert api.get("/readyz").status_code == 200


def test_a_database_that_is_away_is_503_everywhere_but_health(settings: Settings) -> None:
    database = Database(open_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))
    with TestClient(create_api(settings, database, Wake()), headers={"Authorization": "Bearer x"}) as api:
        answers = {call: api.get(call) for call in ("/readyz", "/api/v1/jobs", "/metrics")}
        health = api.get("/healthz")

    assert {call: answer.status_code for call, answer in answers.items()} == dict.fromkeys(answers, 503)
    assert {answer.json()["code"] for answer in answers.values()} == {"database_unavailable"}
    assert health.status_code == 200


def test_metrics_say_what_the_database_knows(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_job(session, datetime.now(UTC) - timedelta(minutes=2), state="queued")
        job_id = add_job(session, NOW, state="succeeded")
        add_job(session, NOW, state="failed", kind="preflight")
        add_recovery_point(session, job_id)
    found = _metrics(api_on_both)

    assert found["stillpoint_database_available", ()] == 1
    assert found["stillpoint_jobs", ("queued", "snapshot")] == 1
    assert found["stillpoint_jobs_finished", ("snapshot", "succeeded")] == 1
    assert found["stillpoint_jobs_finished", ("failed", "preflight")] == 1
    assert found["stillpoint_recovery_points", ("filesystem",)] == 1
    assert 120 <= found["stillpoint_oldest_queued_job_seconds", ("hv1",)] < 130
    assert 0 <= found["stillpoint_host_last_seen_seconds", ("hv1",)] < 10


def test_the_count_of_finished_jobs_does_not_fall_when_old_ones_are_removed(
    api_on_both: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.metrics.TOTALS_SECONDS", -1.0)
    key = "stillpoint_jobs_finished", ("snapshot", "succeeded")
    with database.write() as session:
        old = [add_ended(session, 400) for _ in range(3)]
        add_ended(session, 1)
    assert _metrics(api_on_both)[key] == 4
    with database.write() as session:
        ageing.JOBS.remove(session, old, ago(365))
    assert _metrics(api_on_both)[key] == 4
    with database.write() as session:
        add_ended(session, 1)
    assert _metrics(api_on_both)[key] == 5


def test_finished_jobs_are_counted_without_reading_their_rows(sqlite_database: Database) -> None:
    with sqlite_database.read() as session:
        compiled = FINISHED_JOBS.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        plan = [row.detail for row in session.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    (of_jobs,) = [step for step in plan if " jobs " in step]
    assert "COVERING INDEX ix_jobs_state_kind" in of_jobs


def test_requests_are_counted_under_their_route_and_not_their_id(api: TestClient) -> None:
    for _ in range(3):
        api.get(f"/api/v1/jobs/{uuid4()}")
    api.get("/nowhere")
    api.get("/api/v1/jobs", headers={"Authorization": "Bearer x"})
    found = _metrics(api)

    assert found["stillpoint_http_requests_total", ("/api/v1/jobs/{job_id}", "404", "GET")] == 3
    assert found["stillpoint_http_requests_total", ("404", "GET", "none")] == 1
    assert found["stillpoint_http_requests_total", ("401", "GET", "none")] == 1
    assert found["stillpoint_http_request_seconds_count", ("/api/v1/jobs/{job_id}", "GET")] == 3


def test_metrics_are_given_while_the_database_is_away(api: TestClient, sqlite_database: Database) -> None:
    api.get("/api/v1/jobs")
    with sqlite_database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE hosts RENAME TO elsewhere"))
    found = _metrics(api)

    assert found["stillpoint_database_available", ()] == 0
    assert not any(name == "stillpoint_jobs" for name, _ in found)


def _metrics(api: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = api.get("/metrics")
    assert answer.status_code == 200
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.values()))): sample.value for sample in samples if "bucket" not in sample.name}
