"""Several policies in one request: all are written or none, and ties are judged by what stands at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.config import Settings
from service.db.engine import Database
from service.records.wake import Wake
from tests.api.conftest import client_of
from tests.api.policies import POLICIES, add_copies, add_repository, written
from tests.model.written_policies import EVERYTHING, a_policy, a_track


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(database, Settings(state_dir=tmp_path, host_id="hv1"), Wake()) as client:
        with database.write() as session:
            add_repository(session)
        add_copies(client, "main", "offsite", "disk")
        yield client


def item(revision: int | None = None, **more: Any) -> dict[str, Any]:
    return {"document": a_policy(**more), "revision": revision}


def apply(api: TestClient, *items: dict[str, Any], remove: tuple[dict[str, Any], ...] = (), dry_run: bool = False) -> Any:
    return api.post(f"{POLICIES}/apply", json={"policies": list(items), "remove": list(remove), "dry_run": dry_run})


def changes(answer: Any) -> list[tuple[str, str, int]]:
    assert answer.status_code == 200, answer.text
    return [(policy["name"], policy["change"], policy["revision"]) for policy in answer.json()["policies"]]


def on_record(api: TestClient) -> dict[str, int]:
    return {policy["name"]: policy["revision"] for policy in api.get(POLICIES).json()["items"]}


def test_policies_are_created_changed_left_and_removed_together(api: TestClient) -> None:
    written(api, name="same", selector={"names": ["s"]})
    written(api, name="other", selector={"names": ["o"]})
    written(api, name="old", selector={"names": ["x"]})
    asked = (item(name="new"), item(name="other", selector={"names": ["p"]}), item(name="same", selector={"names": ["s"]}))
    assert changes(apply(api, *asked, remove=({"policy": "old"},))) == [
        ("new", "created", 1),
        ("other", "changed", 2),
        ("same", "unchanged", 1),
        ("old", "removed", 1),
    ]
    assert on_record(api) == {"new": 1, "other": 2, "same": 1}


def test_a_dry_run_says_the_same_and_writes_nothing(api: TestClient) -> None:
    written(api, name="other", selector={"names": ["o"]})
    asked = (item(name="new"), item(name="other", selector={"names": ["p"]}))
    answer = apply(api, *asked, remove=(), dry_run=True)
    assert (changes(answer), answer.json()["dry_run"]) == ([("new", "created", 1), ("other", "changed", 2)], True)
    assert on_record(api) == {"other": 1}
    assert changes(apply(api, remove=({"policy": "other"},), dry_run=True)) == [("other", "removed", 1)]
    assert on_record(api) == {"other": 1}


def test_two_policies_may_exchange_their_domains(api: TestClient) -> None:
    written(api, name="a", selector={"names": ["db*"]})
    written(api, name="b", selector={"names": ["web*"]})
    exchanged = (item(name="a", selector={"names": ["web*"]}), item(name="b", selector={"names": ["db*"]}))
    assert api.put(f"{POLICIES}/b", json=exchanged[1]["document"]).json()["code"] == "policy_tie"
    assert [change for _, change, _ in changes(apply(api, *exchanged))] == ["changed", "changed"]


def test_a_policy_may_take_the_place_of_one_that_is_removed_with_it(api: TestClient) -> None:
    written(api, name="a", selector={"names": ["db1"]})
    assert changes(apply(api, item(name="b", selector={"names": ["db1"]}), remove=({"policy": "a"},))) == [
        ("b", "created", 1),
        ("a", "removed", 1),
    ]
    assert changes(apply(api, item(0, name="b", selector={"names": ["db1"]}), remove=({"policy": "b"},)))[0] == ("b", "created", 1)


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (item(0, name="there", selector={"names": ["t"]}), "policy_taken"),
        (item(7, name="there", selector={"names": ["u"]}), "policy_changed"),
        (item(1, name="gone"), "policy_not_found"),
        (item(name="tied", selector={"names": ["d*"]}), "policy_tie"),
        (item(name="wrong", tracks=[]), "policy_invalid"),
    ],
)
def test_if_one_of_them_is_refused_none_is_written(api: TestClient, second: dict[str, Any], code: str) -> None:
    written(api, name="there", selector={"names": ["t"]})
    first = item(name="first", selector={"names": ["*1"]})
    for dry_run in (True, False):
        assert apply(api, first, second, dry_run=dry_run).json()["code"] == code
    assert on_record(api) == {"there": 1}


def test_the_faults_of_all_documents_come_at_once(api: TestClient) -> None:
    nameless = {key: value for key, value in EVERYTHING.items() if key != "name"}
    track = a_track(job={"kind": "backup", "repository": "other"})
    answer = apply(api, item(tracks=[track]), {"document": nameless}, item(name="x"), item(name="x", selector={"names": ["x"]}))
    assert [(fault["code"], fault["facts"]["path"]) for fault in answer.json()["facts"]["faults"]] == [
        ("policy_repository_unknown", "policies[0].tracks[0].job.repository"),
        ("policy_field_missing", "policies[1].name"),
        ("policy_field_repeated", "policies[3].name"),
    ]


def test_a_policy_that_is_not_there_cannot_be_removed(api: TestClient) -> None:
    assert apply(api, remove=({"policy": "gone"},)).json()["code"] == "policy_not_found"
    written(api, name="there", selector={"names": ["t"]})
    assert apply(api, remove=({"policy": "there", "revision": 4},)).json()["code"] == "policy_changed"


def test_a_policy_with_a_thousand_names_is_accepted(api: TestClient) -> None:
    written(api, selector={"names": [f"{n:0255}" for n in range(1_000)]})
