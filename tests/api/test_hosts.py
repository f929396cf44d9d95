"""Hosts and when their workers were last seen."""

from datetime import timedelta

from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import Host
from tests.api.world import add_domain, add_host


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
