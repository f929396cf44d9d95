"""POST /api/v1/jobs: what is recorded, what is refused, and one job for one Idempotency-Key."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import Domain, Job
from service.model.origin import Origin
from service.records.wake import Wake
from tests.api.world import DB1, add_domain, add_host

DAY_S = 86_400

BODY: dict[str, Any] = {"kind": "snapshot", "domain": "db1"}


def test_a_new_job_is_answered_with_202_its_address_and_everything_that_is_known(api_on_both: TestClient) -> None:
    answer = api_on_both.post("/api/v1/jobs", json={**BODY, "labels": {"plan": "nightly"}, "freeze": {"mode": "preferred"}})

    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert api_on_both.get(answer.headers["location"]).json() == job
    assert job == {
        "id": job["id"],
        "kind": "snapshot",
        "domain": {"id": DB1, "name": "db1"},
        "host": "hv1",
        "state": "queued",
        "phase": None,
        "progress": None,
        "attempt": 0,
        "max_attempts": 3,
        "created_at": job["created_at"],
        "started_at": None,
        "finished_at": None,
        "cancel_requested": False,
        "retry_of": None,
        "labels": {"plan": "nightly"},
        "request": {
            "kind": "snapshot",
            "domain": "db1",
            "host": None,
            "disks": None,
            "freeze": {
                "mode": "preferred",
                "timeout_ms": 120000,
                "hold_limit_ms": None,
                "hold_soft_ms": None,
                "preflush": True,
                "fuse": True,
            },
            "required_verdict": None,
            "on_shortfall": "keep",
        },
        "verdict": None,
        "verdict_reasons": [],
        "vss_outcome": None,
        "writer_failed": None,
        "freeze": None,
        "timing": None,
        "phases": [],
        "recovery_point": None,
        "result": None,
        "error": None,
        "links": {"self": f"/api/v1/jobs/{job['id']}", "explain": f"/api/v1/jobs/{job['id']}/explain"},
        "vss": None,
        "auto_recovery": None,
        "evidence": None,
    }


def test_the_worker_of_this_process_is_woken(api: TestClient, wake: Wake) -> None:
    api.post("/api/v1/jobs", json=BODY)
    assert wake.wait(0)


def test_a_domain_can_be_named_by_its_uuid(api: TestClient) -> None:
    assert api.post("/api/v1/jobs", json={**BODY, "domain": DB1.upper()}).json()["domain"]["name"] == "db1"


def test_an_unknown_domain_names_the_hosts_and_when_they_were_seen(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2", seen_ago=timedelta(days=3))

    answer = api.post("/api/v1/jobs", json={**BODY, "domain": "db7"})

    assert answer.status_code == 404
    assert answer.json()["code"] == "domain_unknown"
    seen_ago_s = answer.json()["facts"]["seen_ago_s"]
    assert (sorted(seen_ago_s), seen_ago_s["hv1"] < 60, round(seen_ago_s["hv2"] / DAY_S)) == (["hv1", "hv2"], True, 3)
    assert all(host in answer.json()["detail"] for host in seen_ago_s)


def test_an_unknown_host_is_named_together_with_the_known_ones(api: TestClient) -> None:
    problem = api.post("/api/v1/jobs", json={**BODY, "host": "hv9"}).json()
    assert (problem["facts"]["host"], list(problem["facts"]["seen_ago_s"])) == ("hv9", ["hv1"])
    assert all(host in problem["detail"] for host in ("hv9", "hv1"))


def test_a_name_on_two_hosts_is_ambiguous_until_the_host_is_named(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_domain(session, "db1", host_id=add_host(session, "hv2"))

    refused = api.post("/api/v1/jobs", json=BODY)
    accepted = api.post("/api/v1/jobs", json={**BODY, "host": "hv2"})

    assert (refused.status_code, refused.json()["code"]) == (409, "domain_ambiguous")
    assert (accepted.status_code, accepted.json()["host"]) == (202, "hv2")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "body.surprise"),
        ({"freeze": {"mode": "required", "surprise": 1}}, "body.freeze.surprise"),
        ({"kind": "thaw"}, "body.kind"),
        ({"domain": ""}, "body.domain"),
        ({"domain": "db\x00"}, "body.domain"),
        ({"domain": 7}, "body.domain"),
        ({"disks": []}, "body.disks"),
        ({"disks": ["vda", "vda"]}, "body.disks"),
        ({"disks": [f"vd{n}" for n in range(65)]}, "body.disks"),
        ({"freeze": {"mode": "sometimes"}}, "body.freeze.mode"),
        ({"freeze": {"timeout_ms": 999}}, "body.freeze.timeout_ms"),
        ({"freeze": {"timeout_ms": 600_001}}, "body.freeze.timeout_ms"),
        ({"freeze": {"timeout_ms": "1000"}}, "body.freeze.timeout_ms"),
        ({"freeze": {"hold_limit_ms": 99}}, "body.freeze.hold_limit_ms"),
        ({"freeze": {"hold_limit_ms": 600_001}}, "body.freeze.hold_limit_ms"),
        ({"freeze": {"hold_soft_ms": 99}}, "body.freeze.hold_soft_ms"),
        ({"freeze": {"hold_soft_ms": 600_001}}, "body.freeze.hold_soft_ms"),
        ({"freeze": {"hold_soft_ms": "5000"}}, "body.freeze.hold_soft_ms"),
        ({"on_shortfall": "ignore"}, "body.on_shortfall"),
        ({"on_shortfall": None}, "body.on_shortfall"),
        ({"freeze": {"preflush": "yes"}}, "body.freeze.preflush"),
        ({"freeze": {"fuse": 1}}, "body.freeze.fuse"),
        ({"required_verdict": "offline"}, "body.required_verdict"),
        ({"labels": {f"k{n}": "" for n in range(33)}}, "body.labels"),
        ({"labels": {"a b": ""}}, "body.labels.a b.[key]"),
        ({"labels": {"a": "x" * 256}}, "body.labels.a"),
        ({"labels": {"a": 1}}, "body.labels.a"),
        ({"labels": {"a": "", "stillpoint.policy": "production"}}, "body.labels"),
        ({"labels": {"stillpoint.of-a-version-to-come": ""}}, "body.labels"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused_by_name(api: TestClient, change: dict[str, Any], field: str) -> None:
    answer = api.post("/api/v1/jobs", json={**BODY, **change})

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [one["field"] for one in answer.json()["facts"]["fields"]] == [field]


@pytest.mark.parametrize(("hold_limit_ms", "hold_soft_ms"), [(100, 100), (600_000, 600_000), (None, None), (8000, None)])
def test_limits_of_the_hold_are_stored_as_they_were_asked_for(
    api: TestClient, sqlite_database: Database, hold_limit_ms: int | None, hold_soft_ms: int | None
) -> None:
    wanted = {"hold_limit_ms": hold_limit_ms, "hold_soft_ms": hold_soft_ms}
    job = api.post("/api/v1/jobs", json={**BODY, "freeze": wanted}).json()

    with sqlite_database.read() as session:
        stored = session.get_one(Job, job["id"]).request["freeze"]
    assert {name: stored[name] for name in wanted} == wanted
    assert stored == job["request"]["freeze"]


@pytest.mark.parametrize("wish", ["keep", "discard", "retry"])
def test_what_becomes_of_a_point_that_falls_short_is_stored(api: TestClient, sqlite_database: Database, wish: str) -> None:
    job = api.post("/api/v1/jobs", json={**BODY, "on_shortfall": wish}).json()
    with sqlite_database.read() as session:
        assert session.get_one(Job, job["id"]).request["on_shortfall"] == wish


def test_text_that_is_no_unicode_is_refused(api: TestClient) -> None:
    body = b'{"kind": "snapshot", "domain": "\\ud800"}'
    answer = api.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_the_same_key_and_body_give_the_same_job_whatever_the_order_of_fields(api_on_both: TestClient) -> None:
    first = api_on_both.post("/api/v1/jobs", json={"kind": "snapshot", "domain": "db1"}, headers={"Idempotency-Key": "k1"})
    second = api_on_both.post("/api/v1/jobs", json={"domain": "db1", "kind": "snapshot"}, headers={"Idempotency-Key": "k1"})

    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"


def test_the_same_key_with_another_body_is_refused(api_on_both: TestClient) -> None:
    first = api_on_both.post("/api/v1/jobs", json=BODY, headers={"Idempotency-Key": "k1"})
    second = api_on_both.post("/api/v1/jobs", json={**BODY, "labels": {"a": "b"}}, headers={"Idempotency-Key": "k1"})

    assert (second.status_code, second.json()["code"]) == (422, "idempotency_mismatch")
    assert second.json()["facts"] == {"key": "k1", "job_id": first.json()["id"]}


def test_the_same_key_on_another_path_is_another_request(api: TestClient) -> None:
    api.post("/api/v1/jobs", json=BODY, headers={"Idempotency-Key": "k1"})
    answer = api.post("/api/v1/domains/db1/thaw", headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


def test_a_repeated_request_is_answered_even_when_the_domain_has_gone(api: TestClient, sqlite_database: Database) -> None:
    first = api.post("/api/v1/jobs", json=BODY, headers={"Idempotency-Key": "k1"})
    with sqlite_database.write() as session:
        session.delete(session.get_one(Domain, ("hv1", DB1)))

    assert api.post("/api/v1/jobs", json=BODY, headers={"Idempotency-Key": "k1"}).json() == first.json()


def test_requests_with_one_key_that_come_at_once_make_one_job(api_on_both: TestClient, database: Database) -> None:
    def ask(_n: int) -> tuple[int, str]:
        answer = api_on_both.post("/api/v1/jobs", json=BODY, headers={"Idempotency-Key": "k1"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(8) as threads:
        answers = set(threads.map(ask, range(16)))

    with database.read() as session:
        stored = session.scalar(select(func.count()).select_from(Job))
    assert len(answers) == 1
    assert {status for status, _ in answers} == {202}
    assert stored == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256])
def test_a_key_must_be_short_printable_text(api: TestClient, key: str) -> None:
    answer = api.post("/api/v1/jobs", json=BODY, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_no_caller_writes_the_labels_of_the_service(api: TestClient) -> None:
    """A point with them would be removed by the retention of a policy that did not ask for it."""
    own = {"labels": Origin("production", "nightly").as_labels()}
    asked = [
        ("post", "/api/v1/jobs", {**BODY, **own}),
        ("post", "/api/v1/domains/db1/quiesce", {"deadline_ms": 1000, **own}),
        ("put", "/api/v1/domains/db1/labels", own),
    ]
    answers = [api.request(method, path, json=body) for method, path, body in asked]
    assert [(answer.status_code, answer.json()["facts"]["fields"][0]["field"]) for answer in answers] == [(422, "body.labels")] * 3
    named = api.post("/api/v1/jobs", json={**BODY, "labels": {"stillpoint": "", "stillpoints.x": "", "my/stillpoint.policy": ""}})
    assert named.status_code == 202
