"""GET /api/v1/protection: every domain, the most urgent first, and the one reason of each."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from service.api.schemas.protection import OneDomainProtection, ProtectionPage
from service.db.engine import Database
from service.db.tables import Domain, RepositorySample
from service.model.verdict import Verdict
from tests.api.undocumented import undocumented
from tests.api.world import DB1, add_domain, add_host
from tests.scenes.promised import (
    DAY,
    HOUR,
    PROMISED,
    REPOSITORY,
    add_point,
    add_policy,
    add_repository,
    add_run,
    add_schedule,
    now,
)

PROTECTION = "/api/v1/protection"


def listed(api: TestClient, **query: Any) -> dict[str, Any]:
    answer = api.get(PROTECTION, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert undocumented(ProtectionPage.model_validate(found)) == []
    return found


def names(found: dict[str, Any]) -> list[str]:
    return [item["domain"]["name"] for item in found["items"]]


def protect(session: Session, name: str, newest: timedelta | None, *, policy: Any, **point: Any) -> str:
    """A domain whose newest point is so old."""
    domain_id = DB1 if name == "db1" else add_domain(session, name)
    add_schedule(session, policy, domain_id, domain=name)
    if newest is not None:
        add_point(session, now() - newest, domain_id=domain_id, **point)
    return domain_id


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """What is read is the same on both: tests/records/test_protection_subset.py."""
    return sqlite_database


@pytest.fixture
def api(api_on_both: TestClient, database: Database) -> TestClient:
    """`db1` is broken, `old` as well, `web1` is protected, and nobody asked for `spare`."""
    with database.write() as session:
        add_repository(session)
        policy = add_policy(session, names=["db1", "old", "web*"])
        protect(session, "db1", 2 * DAY, policy=policy)
        protect(session, "old", 3 * DAY, policy=policy)
        protect(session, "web1", HOUR, policy=policy)
        add_domain(session, "spare")
    return api_on_both


def test_the_most_urgent_come_first(api: TestClient) -> None:
    found = listed(api)
    assert [(item["domain"]["name"], item["state"]) for item in found["items"]] == [
        ("db1", "broken"),
        ("old", "broken"),
        ("spare", "unprotected"),
        ("web1", "protected"),
    ]
    counts = {name: count for name, count in found["summary"].items() if count}
    assert counts == {"domains": 4, "broken": 2, "unprotected": 1, "protected": 1}


def test_a_broken_promise_says_since_when_and_why(api: TestClient) -> None:
    (db1, *_) = listed(api)["items"]
    assert (db1["policy"], db1["broken_part"], db1["host"]) == ("production", "rpo", "hv1")
    assert db1["reason"]["code"] == "no_new_point"
    assert db1["reason"]["remedy"]
    assert db1["newest_kept"]["verdict"] == Verdict.filesystem


def test_a_page_goes_on_where_the_one_before_ended(api: TestClient) -> None:
    seen, cursor = [], None
    while True:
        found = listed(api, limit=1, **({"cursor": cursor} if cursor is not None else {}))
        seen += names(found)
        cursor = found["next_cursor"]
        if cursor is None:
            break
    assert seen == ["db1", "old", "spare", "web1"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"state": "unprotected"}, ["far", "spare"]),
        ({"policy": "production"}, ["db1", "old", "web1"]),
        ({"repository": "main", "state": "protected"}, ["web1"]),
        ({"repository": REPOSITORY, "state": "protected"}, ["web1"]),
        ({"host": "hv2"}, ["far"]),
        ({"proof_too_old": "true"}, []),
    ],
)
def test_domains_are_found_by(api: TestClient, database: Database, query: dict[str, str], expected: list[str]) -> None:
    with database.write() as session:
        add_host(session, "hv2")
        add_domain(session, "far", host_id="hv2")
    assert names(listed(api, **query)) == expected


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"policy": "none"}, 404),
        ({"repository": "none"}, 404),
        ({"state": "fine"}, 422),
        ({"cursor": "!"}, 422),
        ({"cursor": "YQ"}, 422),
        ({"colour": "red"}, 422),
    ],
)
def test_what_does_not_exist_is_refused(api: TestClient, query: dict[str, str], status: int) -> None:
    assert api.get(PROTECTION, params=query).status_code == status


def test_the_summary_counts_all_states_of_what_else_is_asked_for(api: TestClient) -> None:
    found = listed(api, state="broken", policy="production")
    assert names(found) == ["db1", "old"]
    assert (found["summary"]["domains"], found["summary"]["protected"]) == (3, 1)


def test_a_proof_that_is_too_old_is_counted_and_found(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        promise = {**PROMISED, "proof": {"kind": "bytes", "max_age_s": 86_400}}
        policy = add_policy(session, promise=promise)
        for name, hours in (("db1", 30), ("web1", 3)):
            protect(session, name, HOUR, policy=policy, proven_at=now() - timedelta(hours=hours))
    found = listed(api_on_both, proof_too_old=True)
    assert (names(found), found["summary"]["proofs_too_old"]) == (["db1"], 1)
    assert (found["items"][0]["state"], found["items"][0]["broken_part"]) == ("broken", "proof")


def test_a_repository_that_fills_up_has_a_date(api: TestClient, database: Database) -> None:
    with database.write() as session:
        for hour in range(72):
            free = (200 - hour) << 30
            session.add(RepositorySample(repository_id=REPOSITORY, at=now() - timedelta(hours=72 - hour), free_bytes=free))
    found = listed(api)
    ((name, full_at),) = [(one["name"], one["full_at"]) for one in found["repositories"]]
    assert (name, full_at is not None, found["summary"]["repositories_that_fill_up"]) == ("main", True, 1)


def test_a_tie_is_as_urgent_as_it_is(api: TestClient, database: Database) -> None:
    with database.write() as session:
        add_policy(session, "other", names=["db1"])
    (db1,) = listed(api, state="tie")["items"]
    assert (db1["domain"]["name"], db1["policy"], db1["reason"]["code"]) == ("db1", None, "policy_tie")


def one(api: TestClient, domain: str, **query: str) -> dict[str, Any]:
    answer = api.get(f"{PROTECTION}/{domain}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert undocumented(OneDomainProtection.model_validate(found)) == []
    return found


def test_one_domain_is_found_by_name_and_by_id(api: TestClient) -> None:
    found = one(api, "db1")
    assert {**found, "as_of": ""} == {**one(api, DB1), "as_of": ""}
    assert (found["state"], found["promise"]["rpo_s"], [each["name"] for each in found["repositories"]]) == ("broken", 93_600, ["main"])
    assert found["covered_since"] < found["next_run_at"]


def test_a_domain_that_nobody_asked_to_protect_has_no_promise(api: TestClient) -> None:
    found = one(api, "spare")
    assert (found["state"], found["promise"], found["covered_since"]) == ("unprotected", None, None)


def test_a_domain_that_is_gone_is_told_of_as_long_as_it_has_schedules(api: TestClient, database: Database) -> None:
    with database.write() as session:
        session.execute(delete(Domain).where(Domain.id == DB1))
    found = one(api, "db1")
    assert (found["state"], found["reason"]["code"]) == ("broken", "domain_gone")
    assert "db1" in names(listed(api))


def test_a_name_that_two_domains_have_is_ambiguous(api: TestClient, database: Database) -> None:
    with database.write() as session:
        add_host(session, "hv2")
        add_domain(session, "db1", host_id="hv2")
    assert api.get(f"{PROTECTION}/db1").json()["code"] == "domain_ambiguous"
    assert one(api, "db1", host="hv2")["host"] == "hv2"


def test_an_unknown_domain_is_not_found(api: TestClient) -> None:
    assert api.get(f"{PROTECTION}/nobody").status_code == 404


def test_what_the_schedules_say_is_said(api: TestClient, database: Database) -> None:
    with database.write() as session:
        policy = add_policy(session, "special", names=["spec"])
        domain_id = add_domain(session, "spec")
        schedule = add_schedule(session, policy, domain_id, domain="spec")
        add_point(session, now() - 12 * HOUR, domain_id=domain_id)
        add_run(session, policy, schedule, HOUR, "missed", "too_late")
    found = one(api, "spec")
    assert (found["state"], found["reason"]["code"]) == ("at_risk", "run_missed")


def test_the_state_of_the_host_is_a_reason(api: TestClient, database: Database) -> None:
    with database.write() as session:
        session.execute(update(Domain).where(Domain.id == DB1).values(state="paused"))
    assert one(api, "db1")["reason"]["code"] == "domain_paused"
