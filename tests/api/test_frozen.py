"""A guest that somebody else holds: what is shown of it, and that no job which would freeze it is taken."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import Domain
from service.model.foreign_freeze import FOREIGN_FREEZE_MAX_AGE_S
from tests.api.world import ANOTHER, DB1, FROZEN, WEB1, add_domain, add_host, add_job, window_intent

BODY: dict[str, Any] = {"kind": "snapshot", "domain": "web1"}
NOTHING = timedelta(0)


def freeze_web1(database: Database, *, looked_ago: timedelta = NOTHING, **document: Any) -> None:
    with database.write() as session:
        add_domain(session, "web1", WEB1, published_ago=looked_ago, **(FROZEN | document))


def ran(database: Database, *, ended_ago: timedelta, **columns: Any) -> str:
    with database.write() as session:
        return add_job(session, domain_id=WEB1, domain_name="web1", finished_at=datetime.now(UTC) - ended_ago, **columns)


@pytest.mark.parametrize("mode", ["required", "preferred"])
def test_a_job_that_would_freeze_it_is_refused_with_who_since_when_and_what_to_do(
    api_on_both: TestClient, database: Database, mode: str
) -> None:
    freeze_web1(database)
    answer = api_on_both.post("/api/v1/jobs", json={**BODY, "freeze": {"mode": mode}})
    problem = answer.json()

    assert (answer.status_code, problem["code"]) == (409, "guest_already_frozen")
    assert problem["facts"] == {"domain": "web1", "frozen_by": ANOTHER, "frozen_since": "2026-03-01T11:00:00.000000Z"}
    assert "2026-03-01T11:00:00.000000Z" in problem["detail"]
    assert "/thaw" in problem["remedy"]
    assert api_on_both.get("/api/v1/jobs").json()["items"] == []


def test_the_owner_is_named_as_far_as_he_is_known(api: TestClient, sqlite_database: Database) -> None:
    freeze_web1(sqlite_database, frozen_by={"kind": "job", "job_id": DB1})
    problem = api.post("/api/v1/jobs", json=BODY).json()
    assert (problem["facts"]["frozen_by"], DB1 in problem["detail"]) == ({"kind": "job", "job_id": DB1}, True)


@pytest.mark.parametrize(
    ("published", "shown_as"),
    [
        ("not_stillpoint", {"kind": "not_stillpoint", "job_id": None}),
        ("unknown", {"kind": "unknown", "job_id": None}),
        ({"job_id": DB1}, {"kind": "job", "job_id": DB1}),
    ],
)
def test_what_an_older_worker_published_is_shown_in_the_same_shape(
    api: TestClient, sqlite_database: Database, published: Any, shown_as: dict[str, Any]
) -> None:
    freeze_web1(sqlite_database, frozen_by=published)
    assert shown(api, "web1")[2] == shown_as
    assert api.post("/api/v1/jobs", json=BODY).json()["facts"]["frozen_by"] == shown_as


@pytest.mark.parametrize("change", [{"kind": "preflight"}, {"freeze": {"mode": "off"}}, {"domain": "db1"}])
def test_what_does_not_freeze_it_is_accepted(api: TestClient, sqlite_database: Database, change: dict[str, Any]) -> None:
    freeze_web1(sqlite_database)
    assert api.post("/api/v1/jobs", json=BODY | change).status_code == 202


def test_its_thaw_is_accepted(api: TestClient, sqlite_database: Database) -> None:
    freeze_web1(sqlite_database)
    assert api.post("/api/v1/domains/web1/thaw").status_code == 202


def test_a_retry_is_refused_like_a_new_job(api: TestClient, sqlite_database: Database) -> None:
    freeze_web1(sqlite_database)
    job_id = ran(sqlite_database, ended_ago=timedelta(hours=1), state="failed")
    answer = api.post(f"/api/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "guest_already_frozen")


def test_a_request_that_is_repeated_gets_its_job_although_the_guest_was_frozen_since(api: TestClient, sqlite_database: Database) -> None:
    key = {"Idempotency-Key": "nightly"}
    first = api.post("/api/v1/jobs", json={"kind": "snapshot", "domain": "db1"}, headers=key)
    with sqlite_database.write() as session:
        session.execute(update(Domain).values(document=FROZEN))
    again = api.post("/api/v1/jobs", json={"kind": "snapshot", "domain": "db1"}, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_old_word_of_a_host_refuses_nobody(api: TestClient, sqlite_database: Database) -> None:
    """The worker finds out itself; a worker that does not look at a frozen guest any more is not believed that it still is."""
    freeze_web1(sqlite_database, looked_ago=timedelta(seconds=FOREIGN_FREEZE_MAX_AGE_S + 1))
    assert api.post("/api/v1/jobs", json=BODY).status_code == 202


def test_an_agent_that_fell_silent_refuses_nobody(api: TestClient, sqlite_database: Database) -> None:
    freeze_web1(sqlite_database, frozen=None)
    assert api.post("/api/v1/jobs", json=BODY).status_code == 202


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_a_job_queues_behind_one_of_ours_that_holds_the_guest(api_on_both: TestClient, database: Database, state: str) -> None:
    freeze_web1(database)
    with database.write() as session:
        add_job(session, domain_id=WEB1, state=state, intent=window_intent(datetime.now(UTC)))
    assert api_on_both.post("/api/v1/jobs", json=BODY).status_code == 202


def test_a_guest_is_refused_no_longer_when_it_was_thawed_through_us(api_on_both: TestClient, database: Database) -> None:
    """Its host has not looked again yet."""
    freeze_web1(database, looked_ago=timedelta(seconds=3))
    refused = api_on_both.post("/api/v1/jobs", json=BODY)
    ran(database, ended_ago=timedelta(seconds=1), kind="thaw")
    accepted = api_on_both.post("/api/v1/jobs", json=BODY)
    assert (refused.status_code, accepted.status_code) == (409, 202)


@pytest.mark.parametrize(
    "columns", [{"kind": "preflight"}, {"kind": "snapshot", "state": "failed"}, {"kind": "thaw", "state": "failed"}], ids=str
)
def test_a_job_that_did_not_thaw_it_changes_nothing(api: TestClient, sqlite_database: Database, columns: dict[str, Any]) -> None:
    freeze_web1(sqlite_database, looked_ago=timedelta(seconds=3))
    ran(sqlite_database, ended_ago=timedelta(seconds=1), **columns)
    assert api.post("/api/v1/jobs", json=BODY).status_code == 409


# --- what is shown --------------------------------------------------------------------------------


def shown(api: TestClient, domain: str) -> tuple[Any, Any, Any]:
    answer = api.get(f"/api/v1/domains/{domain}").json()
    listed = [one for one in api.get("/api/v1/domains").json()["items"] if one["id"] == answer["id"]]
    assert listed == [answer]
    return answer["frozen"], answer["frozen_since"], answer["frozen_by"]


def test_a_foreign_freeze_is_shown_with_who_and_since_when(api_on_both: TestClient, database: Database) -> None:
    freeze_web1(database)
    assert shown(api_on_both, "web1") == (True, "2026-03-01T11:00:00.000000Z", ANOTHER)
    assert shown(api_on_both, "db1") == (False, None, None)


def test_a_guest_in_the_window_of_a_job_is_shown_frozen_by_it(api_on_both: TestClient, database: Database) -> None:
    """Its agent is not asked meanwhile: the job says it."""
    since = datetime(2026, 3, 1, 11, 30, tzinfo=UTC)
    with database.write() as session:
        job_id = add_job(session, state="running", phase="freeze", intent=window_intent(since))
    assert shown(api_on_both, "db1") == (True, "2026-03-01T11:30:00.000000Z", {"kind": "job", "job_id": job_id})


def test_the_same_domain_on_another_host_is_not_shown_frozen_by_it(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_domain(session, "db1", DB1, host_id=add_host(session, "hv2"))
        add_job(session, state="running", intent=window_intent(datetime.now(UTC)))
    found = {one["host"]: one["frozen"] for one in api.get("/api/v1/domains").json()["items"]}
    assert found == {"hv1": True, "hv2": False}


def test_a_job_whose_window_is_over_holds_nothing(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_job(session, state="running", phase="freeze", intent={"will_freeze": False, "overlays": []})
    assert shown(api, "db1") == (False, None, None)
