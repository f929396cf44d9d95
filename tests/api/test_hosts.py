"""Hosts and when their workers were last seen."""

from datetime import timedelta

from starlette.testclient import TestClient

from service.db.engine import Database
from tests.api.world import add_host


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
