"""Policies over HTTP: written, read, changed by whoever has read what is there, paused and removed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.schemas.examples_policy import DOCUMENT, POLICY_REQUEST
from service.config import Settings
from service.db.engine import Database
from service.model.backup_policy import BackupPolicy
from service.model.repository import RepositoryState
from service.records import repositories
from service.records.repositories import Look
from service.records.wake import Wake
from tests.api.conftest import client_of
from tests.api.policies import POLICIES, add_copies, add_repository, post, written
from tests.api.world import DB1, NOW, add_domain
from tests.model.written_policies import EVERYTHING, a_job, a_policy, a_track


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[TestClient]:
    """One host `hv1` with the domain `db1` and the repository `main`."""
    with client_of(database, Settings(state_dir=tmp_path, host_id="hv1"), Wake()) as client:
        with database.write() as session:
            add_repository(session)
        yield client


def test_a_policy_is_read_as_it_was_written_with_all_its_fields(api: TestClient) -> None:
    add_copies(api, "main", "offsite", "disk")
    answer = api.post(POLICIES, json=EVERYTHING)
    policy = answer.json()
    assert (answer.status_code, policy["revision"], policy["paused"]) == (201, 1, True)
    assert policy["document"] == BackupPolicy.from_document(EVERYTHING).as_document()
    assert answer.headers["location"] == policy["links"]["self"]
    for address in (policy["links"]["self"], f"{POLICIES}/production"):
        assert api.get(address).json() == policy


def test_the_example_of_the_documentation_is_accepted(api: TestClient, database: Database) -> None:
    with database.write() as session:
        add_repository(session, "nas")
    assert api.post(POLICIES, json=POLICY_REQUEST).json()["document"] == DOCUMENT


def test_a_name_is_given_once(api: TestClient) -> None:
    first = written(api)
    answer = post(api, selector={"names": ["web-*"]})
    assert (answer.status_code, answer.json()["code"], answer.json()["facts"]["policy_id"]) == (409, "policy_taken", first["id"])


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_list_is_paged_by_name(api: TestClient, limit: int) -> None:
    for name in ("c", "a", "b"):
        written(api, name=name, selector={"names": [name]})
    read: list[str] = []
    cursor = None
    for _ in range(5):
        page = api.get(POLICIES, params={"limit": limit, **({"cursor": cursor} if cursor else {})}).json()
        read += [policy["name"] for policy in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert read == ["a", "b", "c"]


# --- what is wrong --------------------------------------------------------------------------------


def paths(answer: Any) -> list[tuple[str, str]]:
    assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")
    return [(fault["code"], fault["facts"]["path"]) for fault in answer.json()["facts"]["faults"]]


def test_all_faults_come_at_once_with_their_places(api: TestClient) -> None:
    track = a_track(job=a_job(repository="nsa", freeze={"mode": False}), schedule={"cron": "0 2 * *", "time_zone": "Europe/Berlni"})
    assert paths(post(api, selectr={}, tracks=[track])) == [
        ("policy_field_unknown", "selectr"),
        ("policy_text_expected", "tracks[0].job.freeze.mode"),
        ("policy_cron_unreadable", "tracks[0].schedule.cron"),
        ("policy_time_zone_unknown", "tracks[0].schedule.time_zone"),
        ("policy_repository_unknown", "tracks[0].job.repository"),
    ]


def test_a_repository_is_there(api: TestClient) -> None:
    assert paths(post(api, tracks=[a_track(), a_track("second", job=a_job(repository="other"))])) == [
        ("policy_repository_unknown", "tracks[1].job.repository")
    ]


@pytest.mark.parametrize("state", [RepositoryState.read_only, RepositoryState.bad])
def test_a_repository_can_be_written(api: TestClient, database: Database, state: RepositoryState) -> None:
    with database.write() as session:
        add_repository(session, "broken", state)
    assert paths(post(api, tracks=[a_track(job=a_job(repository="broken"))])) == [
        ("policy_repository_unwritable", "tracks[0].job.repository")
    ]


@pytest.mark.parametrize("state", [RepositoryState.full, RepositoryState.gone, RepositoryState.not_answering, RepositoryState.unknown])
def test_a_repository_that_may_come_back_by_itself_is_accepted(api: TestClient, database: Database, state: RepositoryState) -> None:
    with database.write() as session:
        add_repository(session, "later", state)
    assert post(api, tracks=[a_track(job=a_job(repository="later"))]).status_code == 201


def test_a_policy_may_keep_a_repository_that_became_read_only(api: TestClient, database: Database) -> None:
    with database.write() as session:
        add_repository(session, "once", RepositoryState.ready)
    tracks = [a_track(job=a_job(repository="once"))]
    written(api, tracks=tracks)
    with database.write() as session:
        repositories.note_look(session, "once", Look(RepositoryState.read_only), NOW)
    assert api.put(f"{POLICIES}/production", json=a_policy(tracks=tracks, description="still")).status_code == 200


def test_a_copy_is_there(api: TestClient, database: Database) -> None:
    tracks = [a_track(copies=["offsite"])]
    assert paths(post(api, tracks=tracks)) == [("policy_copy_unknown", "tracks[0].copies[0]")]
    body = {"name": "offsite", "target": {"kind": "folder", "path": "/mnt/offsite"}}
    copy = api.post("/api/v1/repositories/main/copies", json=body).json()
    assert written(api, tracks=tracks)["document"]["tracks"][0]["copies"] == ["offsite"]
    assert api.put(f"{POLICIES}/production", json=a_policy(tracks=[a_track(copies=[copy["id"]])])).status_code == 200


def test_a_copy_that_a_policy_names_is_neither_forgotten_nor_renamed(api: TestClient) -> None:
    copy = "/api/v1/repositories/main/copies/offsite"
    api.post("/api/v1/repositories/main/copies", json={"name": "offsite", "target": {"kind": "folder", "path": "/mnt/offsite"}})
    written(api, tracks=[a_track(copies=["offsite"])])
    for refused in (api.delete(copy), api.patch(copy, json={"name": "other"})):
        assert (refused.status_code, refused.json()["code"], refused.json()["facts"]["policies"]) == (409, "copy_in_use", ["production"])
    assert api.patch(copy, json={"rate_limit_bytes": 4096}).status_code == 200
    api.delete(f"{POLICIES}/production")
    assert (api.patch(copy, json={"name": "other"}).status_code, api.delete(copy.replace("offsite", "other")).status_code) == (200, 200)


@pytest.mark.parametrize("name", ["\x00", "\ud800", "x" * 300, ""])
def test_a_repository_whose_name_no_database_takes_is_a_fault(api: TestClient, name: str) -> None:
    content = json.dumps(a_policy(tracks=[a_track(job=a_job(repository=name))]))
    answer = api.post(POLICIES, content=content, headers={"content-type": "application/json"})
    assert paths(answer) == [("policy_field_refused", "tracks[0].job.repository")]


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"7"])
def test_what_is_not_an_object_is_refused(api: TestClient, body: bytes) -> None:
    answer = api.post(POLICIES, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_yaml_is_refused_by_its_type(api: TestClient) -> None:
    answer = api.post(POLICIES, content=b"name: production", headers={"content-type": "application/yaml"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


# --- changed --------------------------------------------------------------------------------------


def test_a_change_counts_one_revision_and_the_same_again_none(api: TestClient) -> None:
    policy = written(api)
    changed = api.put(policy["links"]["self"], json=a_policy(description="all databases")).json()
    assert (changed["id"], changed["revision"], changed["document"]["description"]) == (policy["id"], 2, "all databases")
    assert api.put(policy["links"]["self"], json=a_policy(description="all databases")).json() == changed


def test_who_has_read_an_older_form_is_refused(api: TestClient) -> None:
    written(api)
    one = f"{POLICIES}/production?revision=1"
    assert api.put(one, json=a_policy(description="first")).status_code == 200
    late = api.put(one, json=a_policy(description="second"))
    assert (late.status_code, late.json()["code"], late.json()["facts"]["now"]) == (409, "policy_changed", 2)
    assert api.delete(one).json()["code"] == "policy_changed"
    assert api.get(f"{POLICIES}/production").json()["document"]["description"] == "first"


def test_a_policy_can_be_given_another_name(api: TestClient) -> None:
    policy = written(api)
    assert api.put(f"{POLICIES}/production", json=a_policy(name="databases")).json()["id"] == policy["id"]
    assert api.get(f"{POLICIES}/production").status_code == 404


def test_pause_and_resume(api: TestClient) -> None:
    written(api)
    for call, paused in (("pause", True), ("pause", True), ("resume", False)):
        answer = api.post(f"{POLICIES}/production/{call}").json()
        assert (answer["paused"], answer["document"]["paused"]) == (paused, paused)
    assert answer["revision"] == 3


def test_a_change_that_does_not_say_paused_leaves_that_as_it_is(api: TestClient) -> None:
    written(api)
    api.post(f"{POLICIES}/production/pause")
    for document, paused in ((a_policy(), True), (a_policy(paused=None), True), (a_policy(paused=False), False), (a_policy(), False)):
        assert api.put(f"{POLICIES}/production", json=document).json()["paused"] is paused


def test_a_repository_that_a_policy_names_is_not_forgotten(api: TestClient) -> None:
    written(api)
    refused = api.delete("/api/v1/repositories/main?forget_points=true")
    assert (refused.status_code, refused.json()["code"], refused.json()["facts"]["policies"]) == (409, "repository_in_use", ["production"])
    api.delete(f"{POLICIES}/production")
    assert api.delete("/api/v1/repositories/main").status_code == 200


def test_of_very_many_faults_the_first_are_shown_and_all_are_counted(api: TestClient) -> None:
    facts = api.post(POLICIES, json={**a_policy(), **{f"field{n}": n for n in range(10_000)}}).json()["facts"]
    assert (facts["count"], len(facts["faults"])) == (10_000, 200)


def test_a_removed_policy_is_gone(api: TestClient) -> None:
    policy = written(api)
    removed = api.delete(f"{POLICIES}/production")
    assert (removed.status_code, removed.json()) == (200, {"id": policy["id"], "name": "production", "revision": 1})
    calls = [("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")]
    answers = [api.request(method, f"{POLICIES}/production{call}") for method, call in calls]
    answers.append(api.put(f"{POLICIES}/production", json=a_policy()))
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "policy_not_found")}


# --- ties -----------------------------------------------------------------------------------------


def test_a_policy_that_would_tie_is_refused_and_the_error_names_both_and_the_domain(api: TestClient) -> None:
    written(api, selector={"names": ["db*"]})
    answer = post(api, name="databases", selector={"names": ["*b1"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "policy_tie")
    assert answer.json()["facts"]["domains"] == [{"id": DB1, "name": "db1", "policies": ["databases", "production"]}]
    assert api.get(f"{POLICIES}/databases").status_code == 404


def test_equal_selectors_that_share_no_domain_are_not_a_tie(api: TestClient) -> None:
    written(api, selector={"names": ["x*"]})
    written(api, name="databases", selector={"names": ["*x"]})


def test_a_change_that_would_tie_is_refused(api: TestClient) -> None:
    written(api, selector={"names": ["db*"]})
    written(api, name="databases", selector={"names": ["web-*"]})
    answer = api.put(f"{POLICIES}/databases", json=a_policy(name="other", selector={"names": ["*b1"]}))
    assert (answer.status_code, answer.json()["facts"]["domains"][0]["policies"]) == (409, ["other", "production"])
    assert api.get(f"{POLICIES}/databases").json()["revision"] == 1


def test_the_policy_above_two_that_are_equal_stays_until_one_of_them_gives_way(api: TestClient) -> None:
    written(api, name="exact", selector={"names": ["db1"]})
    written(api, name="first", selector={"names": ["db*"]})
    written(api, name="second", selector={"names": ["*b1"]})
    answer = api.delete(f"{POLICIES}/exact")
    assert (answer.status_code, answer.json()["facts"]["domains"][0]["policies"]) == (409, ["first", "second"])
    assert api.delete(f"{POLICIES}/second").status_code == 200
    assert api.delete(f"{POLICIES}/exact").status_code == 200


def test_a_tie_that_came_with_a_domain_stops_no_other_change(api: TestClient, database: Database) -> None:
    written(api, selector={"names": ["web*"]})
    written(api, name="other", selector={"names": ["*-x"]})
    with database.write() as session:
        add_domain(session, "web-x")
    assert api.put(f"{POLICIES}/other", json=a_policy(name="other", selector={"names": ["*-x", "*-y"]})).status_code == 200
    assert api.post(f"{POLICIES}/other/pause").status_code == 200
    assert post(api, name="third", selector={"names": ["we*x"]}).json()["code"] == "policy_tie"
    assert post(api, name="third", selector={"names": ["web-x"]}).status_code == 201


# --- labels ---------------------------------------------------------------------------------------


def test_labels_belong_to_the_domain_and_take_the_place_of_the_earlier_ones(api: TestClient) -> None:
    first = api.put("/api/v1/domains/db1/labels", json={"labels": {"tier": "gold", "site": "berlin"}})
    assert (first.status_code, first.json()["labels"]) == (200, {"tier": "gold", "site": "berlin"})
    api.put(f"/api/v1/domains/{DB1}/labels", json={"labels": {"tier": "silver"}})
    assert api.get("/api/v1/domains/db1").json()["labels"] == {"tier": "silver"}
    assert api.get("/api/v1/domains").json()["items"][0]["labels"] == {"tier": "silver"}
    assert api.put("/api/v1/domains/db1/labels", json={"labels": {}}).json()["labels"] == {}


def test_labels_decide_which_policy_has_a_domain(api: TestClient) -> None:
    api.put("/api/v1/domains/db1/labels", json={"labels": {"tier": "gold"}})
    written(api, selector={"labels": {"tier": "gold"}})
    assert post(api, name="other", selector={"labels": {"tier": "gold"}}).json()["code"] == "policy_tie"
    assert post(api, name="other", selector={"labels": {"tier": "silver"}}).status_code == 201


@pytest.mark.parametrize("body", [{}, {"labels": {"": "x"}}, {"labels": {"a b": "x"}}, {"labels": {"a": 7}}, {"tier": "gold"}])
def test_labels_that_no_policy_could_name_are_refused(api: TestClient, body: dict[str, Any]) -> None:
    assert api.put("/api/v1/domains/db1/labels", json=body).json()["code"] == "validation_failed"


def test_the_labels_of_an_unknown_domain_are_not_kept(api: TestClient) -> None:
    answer = api.put("/api/v1/domains/db7/labels", json={"labels": {"tier": "gold"}})
    assert (answer.status_code, answer.json()["code"]) == (404, "domain_unknown")
