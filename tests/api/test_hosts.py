"""Hosts and when their workers were last seen."""

from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import Domain, Host, Job
from tests.api.world import DB1, NOW, WEB1, add_domain, add_host, add_job


def test_hosts_are_listed_with_how_long_ago_they_were_seen(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_host(session, "hv2", seen_ago=timedelta(minutes=5))
    first, second = api_on_both.get("/api/v1/hosts").json()["items"]

    assert (first["id"], first["stale"], first["libvirt_connected"]) == ("hv1", False, True)
    assert (second["id"], second["stale"]) == ("hv2", True)
    assert 300 <= second["seconds_since_seen"] < 310


def test_hosts_are_paged_by_id(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2")
        add_host(session, "hv3")
    first = api.get("/api/v1/hosts?limit=2").json()
    second = api.get(f"/api/v1/hosts?limit=2&cursor={first['next_cursor']}").json()

    assert [host["id"] for host in first["items"] + second["items"]] == ["hv1", "hv2", "hv3"]
    assert second["next_cursor"] is None


def test_a_host_is_stale_by_its_own_interval_and_not_by_that_of_the_api(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        for host, interval in (("slow", 3600.0), ("quick", 2.0)):
            session.get_one(Host, add_host(session, host, seen_ago=timedelta(minutes=5))).inventory_seconds = interval
            add_domain(session, f"of-{host}", host_id=host)
    hosts = {host["id"]: host["stale"] for host in api_on_both.get("/api/v1/hosts").json()["items"]}
    unknown = [domain["name"] for domain in api_on_both.get("/api/v1/domains?state=unknown").json()["items"]]

    assert hosts == {"hv1": False, "slow": False, "quick": True}
    assert unknown == ["of-quick"]


def test_a_host_that_a_clock_ahead_has_seen_is_not_believed(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2", seen_ago=timedelta(hours=-2))
    assert [host["stale"] for host in api.get("/api/v1/hosts").json()["items"]] == [False, True]


def test_a_silent_host_is_forgotten_and_what_it_had_is_told(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_host(session, "hv2", seen_ago=timedelta(minutes=5))
        add_domain(session, "db2", host_id="hv2")
        running = add_job(session, state="running", host_id="hv2", phase="freeze", lease_until=NOW)
        queued = add_job(session, state="queued", host_id="hv2", domain_id="another")

    answer = api_on_both.delete("/api/v1/hosts/hv2")

    assert (answer.status_code, answer.json()) == (200, {"id": "hv2", "jobs_failed": [running], "jobs_cancelled": 1, "domains": 1})
    assert [host["id"] for host in api_on_both.get("/api/v1/hosts").json()["items"]] == ["hv1"]
    job = api_on_both.get(f"/api/v1/jobs/{running}").json()
    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "none", "host_forgotten")
    assert api_on_both.get(f"/api/v1/jobs/{running}/explain").status_code == 200
    assert api_on_both.get(f"/api/v1/jobs/{queued}").json()["state"] == "cancelled"
    again = api_on_both.delete("/api/v1/hosts/hv2")
    assert (again.status_code, again.json()["code"]) == (404, "host_unknown")


def test_a_host_that_lives_is_not_forgotten(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        running = add_job(session, state="running", lease_until=NOW)
    answer = api_on_both.delete("/api/v1/hosts/hv1")
    assert (answer.status_code, answer.json()["code"]) == (409, "host_not_silent")
    assert 0 < answer.json()["facts"]["free_in_s"] <= 90
    with database.read() as session:
        assert session.get_one(Job, running).state == "running"


def test_a_job_of_a_forgotten_host_is_retried_where_the_domain_is_now(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_host(session, "hv2", seen_ago=timedelta(minutes=5))
        add_domain(session, "db1", DB1, host_id="hv2")
        lost = add_job(session, state="running", host_id="hv2", lease_until=NOW)
    api_on_both.delete("/api/v1/hosts/hv2")
    retried = api_on_both.post(f"/api/v1/jobs/{lost}/retry")
    assert (retried.status_code, retried.json()["host"]) == (202, "hv1")


@pytest.mark.parametrize(
    ("hv1", "hv2", "silent", "place"),
    [
        ("running", "running", "hv2", "hv1"),
        ("running", "running", None, None),
        ("running", "shut_off", None, "hv1"),
        ("paused", "shut_off", "hv2", "hv1"),
        ("shut_off", "shut_off", "hv2", None),
        ("shut_off", "running", "hv2", None),
    ],
)
def test_one_domain_on_two_lists_is_where_it_certainly_runs(
    api: TestClient, sqlite_database: Database, hv1: str, hv2: str, silent: str | None, place: str | None
) -> None:
    """A VM that was restarted elsewhere, or migrated, is on both. One that a silent host may still run is not called shut off."""
    with sqlite_database.write() as session:
        add_host(session, "hv2", seen_ago=timedelta(minutes=5 if silent == "hv2" else 0))
        add_domain(session, "db1", DB1, host_id="hv2")
        for host, state in (("hv1", hv1), ("hv2", hv2)):
            session.get_one(Domain, (host, DB1)).state = state
    for domain in ("db1", DB1):
        answer = api.post("/api/v1/jobs", json={"kind": "preflight", "domain": domain})
        if place is None:
            assert (answer.status_code, answer.json()["code"]) == (409, "domain_ambiguous")
        else:
            assert (answer.status_code, answer.json()["host"]) == (202, place)


def test_another_domain_of_the_same_name_is_never_taken_for_the_one_on_a_silent_host(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2", seen_ago=timedelta(minutes=5))
        add_domain(session, "db1", WEB1, host_id="hv2")
    assert api.post("/api/v1/jobs", json={"kind": "preflight", "domain": "db1"}).json()["code"] == "domain_ambiguous"
