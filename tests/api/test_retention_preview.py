"""The preview of retention over HTTP: what would go, and why each other point stays."""

from datetime import timedelta
from typing import Any

import jsonschema_rs
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from service.clock import rfc3339
from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from service.records import policies
from tests.scenes.repositories import DB1, FIRST_NIGHT, id_of_point
from tests.scenes.retained import add_nights, add_policy, add_ready_repository

NIGHTS = ("a", "b", "c", "d")


@pytest.fixture
def nas(api: TestClient, sqlite_database: Database) -> str:
    """Four nights of a track that keeps two, and a point of a person."""
    with sqlite_database.write() as session:
        add_policy(session, retention={"keep_last": 2})
        nas = add_ready_repository(session)
        add_nights(session, nas, *NIGHTS)
        add_nights(session, nas, "person", origin=None, first=9)
        return nas


def ask(api: TestClient, **question: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/retention/preview", json=question)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    schemas = api.get("/openapi.json").json()["components"]
    jsonschema_rs.validate({"$ref": "#/components/schemas/RetentionPreview", "components": schemas}, document)
    return document


def decisions(document: dict[str, Any]) -> dict[str, str]:
    names = {id_of_point(name): name for name in (*NIGHTS, "person", "other")}
    return {names[point["id"]]: point["decision"] for point in document["points"]}


def test_each_point_is_told_with_its_decision_and_its_reasons(api: TestClient, nas: str) -> None:
    document = ask(api)
    assert decisions(document) == {"person": "stays", "d": "stays", "c": "stays", "b": "goes", "a": "goes"}
    person, newest, *_, oldest = document["points"]
    assert [reason["code"] for reason in newest["reasons"]] == ["last", "newest_good"]
    assert (newest["reasons"][0]["facts"], newest["may_go_at"]) == ({"number": 1, "wanted": 2}, None)
    assert (oldest["policy"], oldest["track"], oldest["repository"], oldest["may_go_at"]) == ("production", "nightly", nas, document["at"])
    assert (person["policy"], person["reasons"][0]["code"]) == (None, "not_of_policy")
    assert all(reason["text"] for point in document["points"] for reason in point["reasons"])


def test_the_counts_are_of_all_points_whichever_are_shown(api: TestClient, nas: str) -> None:
    everything = ask(api)
    size = sum(point["size_bytes"] for point in everything["points"] if point["decision"] == "goes")
    assert (everything["goes"], everything["stays"], everything["goes_bytes"]) == (2, 3, size)
    assert [(count["decision"], count["code"], count["points"]) for count in everything["counts"]] == [
        ("goes", "too_old", 2),
        ("stays", "last", 2),
        ("stays", "not_of_policy", 1),
    ]
    shown = {show: ask(api, show=show) for show in ("goes", "stays", "counts")}
    assert {show: len(document.pop("points")) for show, document in shown.items()} == {"goes": 2, "stays": 3, "counts": 0}
    assert all(document["counts"] == everything["counts"] for document in shown.values())


def test_rules_are_tried_out_and_nothing_is_changed(api: TestClient, sqlite_database: Database, nas: str) -> None:
    assert decisions(ask(api, policy="production", rules={"keep_last": 1})) == {"d": "stays", "c": "goes", "b": "goes", "a": "goes"}
    assert ask(api)["goes"] == 2
    with sqlite_database.read() as session:
        assert set(session.scalars(select(RecoveryPoint.state))) == {"sealed"}
        assert session.scalar(select(Job.id)) is None


def test_a_young_point_tells_when_it_can_go(api: TestClient, nas: str) -> None:
    age_s = 366 * 86_400 * 100
    document = ask(api, rules={"keep_last": 1, "minimum_age_s": age_s})
    oldest = document["points"][-1]
    assert [reason["code"] for reason in oldest["reasons"]] == ["young"]
    later = rfc3339(FIRST_NIGHT + timedelta(seconds=age_s))
    assert (oldest["point_in_time_at"], oldest["may_go_at"]) == ("2026-01-31T22:00:00.000000Z", later)


def test_a_repository_a_policy_and_a_domain_narrow_what_is_told(api: TestClient, sqlite_database: Database, nas: str) -> None:
    """What is not told counts all the same."""
    with sqlite_database.write() as session:
        add_nights(session, add_ready_repository(session, "tape"), "other", first=20)
    assert decisions(ask(api, repository="tape")) == {"other": "stays"}
    assert ask(api, repository=nas)["goes"] == 3, "the newer point on tape is one of the two that stay"
    assert decisions(ask(api, policy="production", repository="nas")).keys() == set(NIGHTS)
    assert len(ask(api, domain="db1")["points"]) == len(ask(api, domain=DB1)["points"]) == 6
    assert ask(api, domain="db9")["points"] == ask(api, track="weekly")["points"] == []


def test_a_policy_that_was_deleted_is_still_asked_about_by_its_name(api: TestClient, sqlite_database: Database, nas: str) -> None:
    with sqlite_database.write() as session:
        policies.remove(session, "production")
    document = ask(api, policy="production")
    assert {reason["code"] for point in document["points"] for reason in point["reasons"]} == {"policy_gone"}


@pytest.mark.parametrize(("field", "code"), [("policy", "policy_not_found"), ("repository", "repository_not_found")])
def test_what_is_not_known_is_not_found(api: TestClient, nas: str, field: str, code: str) -> None:
    answer = api.post("/api/v1/retention/preview", json={field: "nowhere"})
    assert (answer.status_code, answer.json()["code"]) == (404, code)


@pytest.mark.parametrize("rules", [{"keep_last": -1}, {"keep_often": 1}, {"new_full": {"max_ratio": 0}}, {"keep_daily": True}])
def test_rules_that_are_not_valid_are_refused(api: TestClient, nas: str, rules: dict[str, Any]) -> None:
    answer = api.post("/api/v1/retention/preview", json={"rules": rules})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
