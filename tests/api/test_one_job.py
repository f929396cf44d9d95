"""Reading, cancelling, retrying and explaining one job."""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from service.db.engine import Database, database_now
from service.db.tables import Job
from service.model.requests import SnapshotRequest
from service.records import ageing, raw_texts
from tests.api.world import DB1, NOW, add_domain, add_host, add_job, change_job
from tests.scenes.aged import RAW, add_ended, add_texts, ago

NOWHERE = str(uuid4())


def test_a_job_is_answered_as_it_is_stored(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(
            session,
            started_at=NOW,
            finished_at=NOW,
            phase="evaluate",
            domain_name='d"b\\1 – ü',
            verdict="filesystem",
            verdict_reasons=[{"code": "x", "effect": "lifts", "detail": "ü"}],
            timing={"freeze_ms": 1.5},
            freeze={"outcome": "frozen"},
            phases=[{"name": "freeze"}],
            evidence={"raw": 'a "quoted" text\nwith lines \x1e and %s'},
            recovery_point={"id": "p"},
            vss={"applicable": True, "writers": [{"name": 'SQL "ü" %s'}]},
            vss_outcome="completed",
            writer_failed=True,
            auto_recovery={"mode": "disabled_by_requester"},
            error=None,
            cancel_requested=True,
        )
    job = api_on_both.get(f"/api/v1/jobs/{job_id}").json()

    assert job["domain"] == {"id": DB1, "name": 'd"b\\1 – ü'}
    assert (job["created_at"], job["started_at"], job["finished_at"]) == ("2026-03-01T12:00:00.000000Z",) * 3
    assert job["verdict_reasons"] == [{"code": "x", "effect": "lifts", "detail": "ü"}]
    assert (job["timing"], job["freeze"], job["phases"]) == ({"freeze_ms": 1.5}, {"outcome": "frozen"}, [{"name": "freeze"}])
    assert job["evidence"] == {"raw": 'a "quoted" text\nwith lines \x1e and %s'}
    assert job["vss"] == {"applicable": True, "writers": [{"name": 'SQL "ü" %s'}]}
    assert (job["vss_outcome"], job["writer_failed"], job["auto_recovery"]) == ("completed", True, {"mode": "disabled_by_requester"})
    assert (job["recovery_point"], job["error"], job["cancel_requested"]) == ({"id": "p"}, None, True)


def test_raw_texts_stand_in_the_evidence_beside_the_facts(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(session, evidence={"survey": {"uptime_s": 12.5}, "left_out": {}})
        raw_texts.keep(session, job_id, 1, {"windows": {"raw_text": 'a "quoted" ü\r\n %s \x00'}, "more": {"n": 1}})
        other = add_job(session, evidence={"survey": None, "windows": None})
    evidence = api_on_both.get(f"/api/v1/jobs/{job_id}").json()["evidence"]
    assert evidence == {
        "survey": {"uptime_s": 12.5},
        "left_out": {},
        "windows": {"raw_text": 'a "quoted" ü\r\n %s \x00'},
        "more": {"n": 1},
    }
    assert api_on_both.get(f"/api/v1/jobs/{other}").json()["evidence"] == {"survey": None, "windows": None}


def test_texts_of_a_later_attempt_replace_those_of_the_earlier(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(session, evidence={"survey": None})
        for attempt in (1, 2):
            raw_texts.keep(session, job_id, attempt, {"windows": {"attempt": attempt}, f"of_{attempt}": {}})
    evidence = api_on_both.get(f"/api/v1/jobs/{job_id}").json()["evidence"]
    assert evidence == {"survey": None, "windows": {"attempt": 2}, "of_2": {}}


def test_a_job_whose_raw_texts_were_aged_out_says_so_and_keeps_all_else(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_ended(session, 100, evidence={"survey": {"uptime_s": 12.5}}, verdict_reasons=[{"code": "x"}], vss={"writers": []})
        add_texts(session, job_id, 100)
    before = api_on_both.get(f"/api/v1/jobs/{job_id}").json()
    explained = api_on_both.get(f"/api/v1/jobs/{job_id}/explain")
    with database.write() as session:
        ageing.RAW_TEXTS.remove(session, [job_id], ago(90))
        now = database_now(session)
    after = api_on_both.get(f"/api/v1/jobs/{job_id}").json()
    assert before["evidence"].pop("windows") == RAW
    said = after["evidence"].pop("windows")
    assert after == before
    assert now - timedelta(minutes=1) < datetime.fromisoformat(said.pop("aged_out_at")) <= now
    assert said == {}
    assert explained.json() == api_on_both.get(f"/api/v1/jobs/{job_id}/explain").json()


def test_what_the_worker_writes_is_seen_at_once(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(session, state="queued")
    states = []
    for state in ("queued", "running", "succeeded"):
        with database.write() as session:
            change_job(session, job_id, state=state)
        states.append(api_on_both.get(f"/api/v1/jobs/{job_id}").json()["state"])
    assert states == ["queued", "running", "succeeded"]


@pytest.mark.parametrize("call", ["GET {}", "GET {}/explain", "POST {}/cancel", "POST {}/retry"])
def test_a_job_that_does_not_exist_is_not_found(api: TestClient, call: str) -> None:
    method, _, path = call.format(f"/api/v1/jobs/{NOWHERE}").partition(" ")
    answer = api.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert answer.json()["facts"] == {"job_id": NOWHERE}


def test_an_id_that_is_no_uuid_is_refused(api: TestClient) -> None:
    answer = api.get("/api/v1/jobs/last")
    assert (answer.status_code, answer.json()["facts"]["fields"][0]["field"]) == (422, "path.job_id")


def test_a_queued_job_is_cancelled_at_once(api_on_both: TestClient) -> None:
    job = api_on_both.post("/api/v1/jobs", json={"kind": "snapshot", "domain": "db1"}).json()
    answer = api_on_both.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.json() == api_on_both.get(f"/api/v1/jobs/{job['id']}").json()


def test_a_running_job_is_asked_to_stop(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        job_id = add_job(session, state="running")
    answer = api.post(f"/api/v1/jobs/{job_id}/cancel").json()
    assert (answer["state"], answer["cancel_requested"]) == ("running", True)


def test_a_finished_job_cannot_be_cancelled(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        job_id = add_job(session, state="succeeded")
    answer = api.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "cancel_refused")
    assert answer.json()["facts"]["state"] == "succeeded"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_retry_is_a_new_job_with_the_same_request(api_on_both: TestClient, database: Database, state: str) -> None:
    with database.write() as session:
        request = SnapshotRequest("db1").as_document()
        job_id = add_job(session, state=state, labels={"plan": "nightly"}, error={"code": "freeze_failed"}, request=request)
    old = api_on_both.get(f"/api/v1/jobs/{job_id}").json()
    answer = api_on_both.post(f"/api/v1/jobs/{job_id}/retry")
    new = answer.json()

    assert answer.status_code == 202
    assert answer.headers["location"] == new["links"]["self"]
    assert new["id"] != job_id
    assert (new["state"], new["retry_of"], new["error"]) == ("queued", job_id, None)
    assert (new["request"], new["labels"], new["domain"]) == (old["request"], old["labels"], old["domain"])
    assert api_on_both.get(f"/api/v1/jobs/{job_id}").json() == old
    assert [job["id"] for job in api_on_both.get("/api/v1/jobs?label=plan:nightly").json()["items"]] == [new["id"], job_id]


def test_a_retry_leaves_out_what_the_service_had_counted_by_itself(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        job_id = add_job(session, state="failed", request={"kind": "snapshot", "domain": "db1", "on_shortfall": "retry"})
        change_job(session, job_id, shortfall_try=3)
    new = api.post(f"/api/v1/jobs/{job_id}/retry").json()
    assert new["request"]["on_shortfall"] == "retry"
    with sqlite_database.read() as session:
        assert session.get_one(Job, new["id"]).shortfall_try == 0


@pytest.mark.parametrize("state", ["queued", "running", "interrupted", "succeeded"])
def test_only_what_failed_or_was_cancelled_can_be_retried(api: TestClient, sqlite_database: Database, state: str) -> None:
    with sqlite_database.write() as session:
        job_id = add_job(session, state=state)
    answer = api.post(f"/api/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "retry_refused")


def test_a_retry_with_a_key_happens_once(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        job_id = add_job(session, state="failed")
    answers = [api.post(f"/api/v1/jobs/{job_id}/retry", headers={"Idempotency-Key": "again"}).json()["id"] for _ in range(2)]
    assert answers[0] == answers[1]


def test_a_retry_goes_where_the_domain_is_now(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        moved = add_domain(session, "web1", host_id=add_host(session, "hv2"))
        job_id = add_job(session, state="failed", domain_id=moved, domain_name="web1", host_id="hv1")
    assert api.post(f"/api/v1/jobs/{job_id}/retry").json()["host"] == "hv2"


def test_a_job_is_explained_from_what_is_on_record(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        reason = {"code": "freeze_off", "effect": "lowers", "detail": "a detail of its own"}
        job_id = add_job(session, verdict="crash", verdict_reasons=[reason])
    explained = api.get(f"/api/v1/jobs/{job_id}/explain").json()

    assert sorted(explained) == ["because", "summary", "would_lift"]
    assert explained["because"] == [reason["detail"]]
    assert explained["would_lift"] != []
