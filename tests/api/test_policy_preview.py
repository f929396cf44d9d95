"""What a policy would do: its domains and whom they belong to now, the runs of the next days, and the load by hour."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from service.config import Settings
from service.db.engine import Database
from service.db.tables import Policy, ScheduleRun
from service.records.wake import Wake
from tests.api.conftest import client_of
from tests.api.policies import POLICIES, add_repository, written
from tests.api.world import DB1, NOW, add_domain
from tests.model.written_policies import a_blackout, a_policy, a_schedule, a_track


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[TestClient]:
    """The domains `db1`, `db2` and `web1`, and the repository `main`."""
    with client_of(database, Settings(state_dir=tmp_path, host_id="hv1"), Wake()) as client:
        with database.write() as session:
            add_repository(session)
            add_domain(session, "db2")
            add_domain(session, "web1")
        yield client


def preview(api: TestClient, query: str = "", **more: Any) -> dict[str, Any]:
    answer = api.post(f"{POLICIES}/preview{query}", json=a_policy(**more))
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def named(group: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(domain["name"], domain["policies"]) for domain in group["items"]]


# --- domains --------------------------------------------------------------------------------------


def test_a_preview_names_the_domains_and_whom_they_belong_to_now(api: TestClient) -> None:
    written(api, name="rest", selector={"all_the_rest": True})
    written(api, name="exact", selector={"names": ["db2"]})
    found = preview(api, selector={"names": ["db*", "d*"]})
    assert [(domain["name"], domain["why"]["name"]) for domain in found["domains"]["items"]] == [("db1", "db*")]
    assert named(found["takes"]) == [("db1", ["rest"])]
    assert named(found["outranked"]) == [("db2", ["exact"])]
    assert (named(found["loses"]), named(found["ties"]), found["is_on_record"]) == ([], [], False)
    assert api.get(f"{POLICIES}/production").status_code == 404


def test_a_preview_of_a_change_names_the_domains_that_it_would_lose(api: TestClient) -> None:
    written(api, selector={"names": ["db*", "web*"]})
    written(api, name="rest", selector={"all_the_rest": True})
    found = preview(api, selector={"names": ["db1", "x*"]})
    assert found["is_on_record"]
    assert named(found["loses"]) == [("db2", ["rest"]), ("web1", ["rest"])]
    assert (found["domains"]["count"], found["takes"]["count"]) == (1, 0)
    api.delete(f"{POLICIES}/rest")
    assert named(preview(api, selector={"names": ["db*"]})["loses"]) == [("web1", [])]


def test_a_preview_shows_the_ties_for_which_a_write_is_refused(api: TestClient) -> None:
    written(api, name="databases", selector={"names": ["db*"]})
    found = preview(api, selector={"names": ["*b1", "web1"]})
    assert named(found["ties"]) == [("db1", ["databases", "production"])]
    assert [domain["name"] for domain in found["domains"]["items"]] == ["web1"]


def test_a_preview_tells_the_faults_as_a_write_does(api: TestClient) -> None:
    answer = api.post(f"{POLICIES}/preview", json=a_policy(tracks=[]))
    assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")


# --- runs and load --------------------------------------------------------------------------------

EVERY_HOUR = a_track(schedule=a_schedule(cron="15 * * * *", time_zone="UTC"))


def test_a_preview_has_the_runs_of_a_week_and_the_load_of_each_hour(api: TestClient) -> None:
    found = preview(api, tracks=[EVERY_HOUR], selector={"names": ["db*"]})
    assert (found["runs"]["count"], found["runs"]["by_outcome"]) == (2 * 7 * 24, {"queued": 2 * 7 * 24, "missed": 0, "skipped": 0})
    assert sum(hour["starts"] for hour in found["load"]) == 2 * 7 * 24
    assert found["busiest_hour"]["starts"] == 2
    assert found["busiest_hour"]["by_track"] == {"nightly": 2}
    starts = [run["starts_at"] for run in found["runs"]["items"]]
    assert (len(starts), starts) == (100, sorted(starts))


def test_a_preview_is_as_long_as_asked_for(api: TestClient) -> None:
    found = preview(api, "?days=2&limit=3", tracks=[EVERY_HOUR], selector={"all_the_rest": True})
    begin, until = (datetime.fromisoformat(found[name]) for name in ("begin", "until"))
    assert until - begin == timedelta(days=2)
    assert (len(found["runs"]["items"]), found["runs"]["count"]) == (3, 3 * 48)
    assert (len(found["domains"]["items"]), found["domains"]["count"]) == (3, 3)
    (first,) = preview(api, "?limit=1", tracks=[EVERY_HOUR], selector={"all_the_rest": True})["domains"]["items"]
    assert first["name"] == "db1"


def test_runs_that_do_not_begin_are_no_load_and_say_why(api: TestClient) -> None:
    blackouts = [a_blackout("00:00", "24:00", days=["mon", "tue", "wed", "thu", "fri", "sat"])]
    skipping = a_track(schedule=a_schedule(cron="15 * * * *", time_zone="UTC", catch_up="skip"))
    found = preview(api, tracks=[skipping], blackouts=blackouts, selector={"names": ["db1"]})
    assert found["runs"]["by_outcome"] == {"queued": 24, "missed": 0, "skipped": 6 * 24}
    paused = preview(api, tracks=[EVERY_HOUR], paused=True)
    assert {run["reason"] for run in paused["runs"]["items"]} <= {"paused"}
    assert paused["busiest_hour"] is None


@pytest.mark.parametrize("query", ["days=0", "days=32", "limit=0", "limit=1001", "hours=1"])
def test_a_preview_is_bounded(api: TestClient, query: str) -> None:
    assert api.post(f"{POLICIES}/preview?{query}", json=a_policy()).json()["code"] == "validation_failed"


def test_a_policy_on_record_has_the_preview_of_its_document(api: TestClient) -> None:
    written(api, selector={"names": ["db*"]}, tracks=[EVERY_HOUR])
    found = api.post(f"{POLICIES}/production/preview").json()
    assert (found["is_on_record"], found["domains"]["count"], found["takes"]["count"]) == (True, 2, 0)
    assert api.post(f"{POLICIES}/other/preview").status_code == 404


# --- the domains that it has ----------------------------------------------------------------------


def domains_of(api: TestClient, policy: str = "production", limit: int = 50) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = None
    for _ in range(10):
        page = api.get(f"{POLICIES}/{policy}/domains", params={"limit": limit, **({"cursor": cursor} if cursor else {})}).json()
        items += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    return items


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_domains_of_a_policy_say_why(api: TestClient, limit: int) -> None:
    api.put("/api/v1/domains/db2/labels", json={"labels": {"tier": "gold", "site": "x"}})
    written(api, selector={"names": ["db*", "web1"], "hosts": ["hv1"]})
    written(api, name="labelled", selector={"names": ["db*"], "hosts": ["hv1"], "labels": {"tier": "gold"}})
    rest = {"labels": None, "host": "hv1", "all_the_rest": False}
    found = [(domain["name"], domain["why"], domain["tie"]) for domain in domains_of(api, limit=limit)]
    assert found == [("db1", {"name": "db*", **rest}, None), ("web1", {"name": "web1", **rest}, None)]
    (labelled,) = domains_of(api, "labelled")
    assert (labelled["name"], labelled["labels"], labelled["why"]["labels"]) == ("db2", {"tier": "gold", "site": "x"}, {"tier": "gold"})


def test_a_tie_that_came_later_is_in_the_list_of_both(api: TestClient, database: Database) -> None:
    written(api, selector={"names": ["x*"]})
    written(api, name="other", selector={"names": ["*x"]})
    with database.write() as session:
        add_domain(session, "x-x")
    for policy in ("production", "other"):
        (domain,) = domains_of(api, policy)
        assert (domain["name"], domain["tie"]) == ("x-x", ["other", "production"])


@pytest.mark.parametrize("call", ["domains", "runs"])
def test_a_cursor_that_was_not_given_out_is_refused(api: TestClient, call: str) -> None:
    written(api)
    for cursor in ("", "x", "AA", "bm8"):
        assert api.get(f"{POLICIES}/production/{call}?cursor={cursor}").json()["code"] == "cursor_invalid"


# --- runs -----------------------------------------------------------------------------------------


def add_run(session: Any, policy: Policy, hours: int, **columns: Any) -> None:
    values: dict[str, Any] = {
        "track": "nightly",
        "domain_id": DB1,
        "domain_name": "db1",
        "outcome": "queued",
        "reason": None,
        "facts": {},
        "job_id": None,
    }
    due = {"schedule_id": str(uuid4()), "due_at": NOW - timedelta(hours=hours), "decided_at": NOW}
    session.add(ScheduleRun(policy_id=policy.id, policy_name=policy.name, **due, **{**values, **columns}))


def test_the_runs_of_a_policy_come_newest_first_and_by_filters(api: TestClient, database: Database) -> None:
    written(api)
    written(api, name="other", selector={"names": ["web*"]})
    with database.write() as session:
        mine, other = (session.query(Policy).filter_by(name=name).one() for name in ("production", "other"))
        for hours in range(6):
            add_run(session, mine, hours // 2, outcome="missed" if hours == 3 else "queued", reason="too_late" if hours == 3 else None)
        add_run(session, mine, 9, domain_id=str(uuid4()), domain_name="db2", track="hourly")
        add_run(session, other, 0)
    address = f"{POLICIES}/production/runs"
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        page = api.get(address, params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [run["due_at"] for run in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert (len(seen), seen) == (7, sorted(seen, reverse=True))
    (missed,) = api.get(f"{address}?outcome=missed").json()["items"]
    assert (missed["reason"], missed["domain"], missed["track"]) == ("too_late", {"id": DB1, "name": "db1"}, "nightly")
    counts = {query: len(api.get(f"{address}?{query}").json()["items"]) for query in ("domain=db2", f"domain={DB1}", "track=hourly")}
    assert counts == {"domain=db2": 1, f"domain={DB1}": 6, "track=hourly": 1}
    assert len(api.get(address, params={"since": (NOW - timedelta(hours=1)).isoformat()}).json()["items"]) == 4
    assert len(api.get(address, params={"until": (NOW - timedelta(hours=1)).isoformat()}).json()["items"]) == 3


@pytest.mark.parametrize("by", ["id", "name"])
def test_the_runs_of_a_policy_that_was_removed_are_still_listed(api: TestClient, database: Database, by: str) -> None:
    for name in ("production", "other"):
        written(api, name=name, selector={"names": [f"{name}*"]})
    with database.write() as session:
        policy, other = (session.query(Policy).filter_by(name=name).one() for name in ("production", "other"))
        add_run(session, policy, 2)
        add_run(session, policy, 1)
        add_run(session, other, 0)
        address = f"{POLICIES}/{policy.id if by == 'id' else policy.name}"
    assert api.delete(address).status_code == 200
    assert len(api.get(f"{address}/runs").json()["items"]) == 2
    assert (api.get(address).status_code, api.get(f"{POLICIES}/never-there/runs").status_code) == (404, 404)


def test_a_name_that_several_policies_had_means_the_one_that_is_there_and_then_the_last_one(api: TestClient, database: Database) -> None:
    ids, address = list[str](), f"{POLICIES}/production"
    for hours in (3, 2, 1):
        written(api)
        with database.write() as session:
            policy = session.query(Policy).filter_by(name="production").one()
            ids.append(policy.id)
            for _ in range(hours):
                add_run(session, policy, hours)
        if hours > 1:
            assert api.delete(address).status_code == 200
    assert len(api.get(f"{address}/runs").json()["items"]) == 1
    assert api.delete(address).status_code == 200
    assert len(api.get(f"{address}/runs").json()["items"]) == 1
    assert [len(api.get(f"{POLICIES}/{each}/runs").json()["items"]) for each in ids] == [3, 2, 1]


def test_a_policy_that_was_renamed_is_not_found_by_the_name_that_its_older_runs_have(api: TestClient, database: Database) -> None:
    """It was not removed: its runs are listed by its name of today."""
    written(api)
    with database.write() as session:
        add_run(session, session.query(Policy).filter_by(name="production").one(), 1)
    assert api.put(f"{POLICIES}/production", json=a_policy(name="nights")).status_code == 200
    assert api.get(f"{POLICIES}/production/runs").status_code == 404
    assert len(api.get(f"{POLICIES}/nights/runs").json()["items"]) == 1
