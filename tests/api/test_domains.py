"""Domains as their hosts published them, and the calls on one domain."""

from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from tests.api.world import DB1, NOW, WEB1, add_domain, add_host, add_job, add_recovery_point


def test_a_domain_is_answered_by_name_and_by_uuid(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(session)
        add_recovery_point(session, job_id, NOW - timedelta(days=1), verdict="crash")
        newest = add_recovery_point(session, job_id, NOW)
    by_name = api_on_both.get("/api/v1/domains/db1").json()

    assert by_name == {
        "id": DB1,
        "name": "db1",
        "host": "hv1",
        "state": "running",
        "stale": False,
        "published_at": by_name["published_at"],
        "labels": {},
        "persistent": True,
        "frozen": False,
        "frozen_since": None,
        "frozen_by": None,
        "disks": [{"target": "vda", "can_snapshot": True}],
        "filesystems": None,
        "agent": {"channel": True, "connected": True},
        "os": None,
        "newest_recovery_point": {"id": newest, "created_at": "2026-03-01T12:00:00.000000Z", "verdict": "filesystem"},
        "links": {"self": f"/api/v1/domains/{DB1}", "jobs": f"/api/v1/jobs?domain={DB1}"},
    }
    assert api_on_both.get(f"/api/v1/domains/{DB1}").json() == by_name


def test_a_domain_of_a_host_that_is_not_heard_of_is_unknown(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_domain(session, "web1", host_id=add_host(session, "hv2", seen_ago=timedelta(seconds=91)))
        add_domain(session, "web2", host_id=add_host(session, "hv3", seen_ago=timedelta(seconds=60)))
    shown = {one["name"]: (one["state"], one["stale"]) for one in api.get("/api/v1/domains").json()["items"]}

    assert shown == {"db1": ("running", False), "web1": ("unknown", True), "web2": ("running", False)}
    assert [one["name"] for one in api.get("/api/v1/domains?state=unknown").json()["items"]] == ["web1"]
    assert [one["name"] for one in api.get("/api/v1/domains?state=running").json()["items"]] == ["db1", "web2"]


def test_an_unknown_domain_is_not_found_and_two_of_a_name_are_ambiguous(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_domain(session, "db1", WEB1, host_id=add_host(session, "hv2"))

    assert api.get("/api/v1/domains/db7").json()["code"] == "domain_unknown"
    assert api.get("/api/v1/domains/db1").json()["code"] == "domain_ambiguous"
    assert api.get("/api/v1/domains/db1?host=hv2").json()["id"] == WEB1


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_list_is_paged_by_name(api_on_both: TestClient, database: Database, limit: int) -> None:
    with database.write() as session:
        add_host(session, "hv2")
        for name in ("a", "b", "b", "c"):
            add_domain(session, name, host_id="hv2")
        add_domain(session, "db1", DB1, host_id="hv2")
    read: list[tuple[str, str]] = []
    cursor = None
    for _ in range(10):
        page = api_on_both.get("/api/v1/domains", params={"limit": limit, **({"cursor": cursor} if cursor else {})}).json()
        read += [(one["name"], one["host"]) for one in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert read == [("a", "hv2"), ("b", "hv2"), ("b", "hv2"), ("c", "hv2"), ("db1", "hv1"), ("db1", "hv2")]
    assert [one["name"] for one in api_on_both.get("/api/v1/domains?host=hv2&name=c").json()["items"]] == ["c"]


@pytest.mark.parametrize("cursor", ["", "x", "AA", "bm8"])
def test_a_cursor_that_was_not_given_out_is_refused(api: TestClient, cursor: str) -> None:
    assert api.get(f"/api/v1/domains?cursor={cursor}").json()["code"] == "cursor_invalid"


def test_a_preflight_is_a_job_and_its_body_may_be_left_out(api_on_both: TestClient) -> None:
    bare = api_on_both.post("/api/v1/domains/db1/preflight")
    full = api_on_both.post("/api/v1/domains/db1/preflight", json={"disks": ["vda"], "freeze": {"mode": "off"}})

    assert (bare.status_code, bare.json()["kind"], bare.json()["state"]) == (202, "preflight", "queued")
    assert bare.json()["request"]["freeze"]["mode"] == "required"
    assert (full.json()["request"]["disks"], full.json()["request"]["freeze"]["mode"]) == (["vda"], "off")
    assert full.headers["location"] == full.json()["links"]["self"]


def test_an_unknown_field_in_a_preflight_is_refused(api: TestClient) -> None:
    answer = api.post("/api/v1/domains/db1/preflight", json={"labels": {}})
    assert (answer.status_code, answer.json()["facts"]["fields"][0]["field"]) == (422, "body.labels")


def test_an_emergency_thaw_is_a_job(api_on_both: TestClient) -> None:
    answer = api_on_both.post(f"/api/v1/domains/{DB1}/thaw")
    assert (answer.status_code, answer.json()["kind"], answer.json()["domain"]["name"]) == (202, "thaw", "db1")


@pytest.mark.parametrize("call", ["preflight", "thaw"])
def test_calls_on_an_unknown_domain_are_not_found(api: TestClient, call: str) -> None:
    answer = api.post(f"/api/v1/domains/db7/{call}")
    assert (answer.status_code, answer.json()["code"]) == (404, "domain_unknown")
