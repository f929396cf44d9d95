"""Repositories over HTTP: registered, listed, looked at by wish, forgotten."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from service.api.schemas.repositories import RepositoryAnswer
from service.config import Settings
from service.db.engine import Database
from service.errors import RepositoryGone
from service.model.repository import RepositoryState
from service.records import repositories
from service.records.repositories import Look
from service.records.wake import Wake
from tests.api.undocumented import undocumented
from tests.api.world import add_host
from tests.scenes.repositories import add_repository, add_sealed

BODY = {"name": "nas", "path": "/srv/backups, old: new\n"}


def test_a_repository_is_registered_once_and_the_worker_is_woken(api_on_both: TestClient, wake: Wake) -> None:
    answer = api_on_both.post("/api/v1/repositories", json={**BODY, "key": "file:/etc/nas.key", "max_transfers": 2})
    added = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, added["links"]["self"])
    assert (added["host"], added["state"], added["stale"], added["key"]) == ("hv1", "unknown", True, "file:/etc/nas.key")
    assert added["path"] == BODY["path"]
    assert added["check_asked_at"] is not None
    for known_as in (added["id"], "nas"):
        assert api_on_both.get(f"/api/v1/repositories/{known_as}").json() == added
    assert undocumented(RepositoryAnswer.model_validate(added)) == []

    again = api_on_both.post("/api/v1/repositories", json=BODY)
    assert (again.status_code, again.json()["code"]) == (409, "repository_taken")


def test_a_program_that_this_host_does_not_name_is_refused_before_the_repository_is_on_the_list(
    api: TestClient, settings: Settings, sqlite_database: Database
) -> None:
    for reference in ("command:/usr/bin/touch /tmp/x", "command:echo key", "command:'"):
        refused = api.post("/api/v1/repositories", json={**BODY, "key": reference})
        assert (refused.status_code, refused.json()["code"]) == (409, "key_unusable")
        assert refused.json()["facts"]["key"] == reference
    assert api.get("/api/v1/repositories").json()["items"] == []

    settings.key_commands = "/usr/bin/vault:/usr/bin/pass"
    assert api.post("/api/v1/repositories", json={**BODY, "key": "command:/usr/bin/vault read key"}).status_code == 201


def test_the_programs_of_another_host_are_left_to_its_worker(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2")
    assert api.post("/api/v1/repositories", json={**BODY, "host": "hv2", "key": "command:/usr/bin/vault"}).status_code == 201


def test_with_several_hosts_the_host_is_named(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2")
    unclear = api.post("/api/v1/repositories", json=BODY)
    unknown = api.post("/api/v1/repositories", json={**BODY, "host": "hv9"})
    named = api.post("/api/v1/repositories", json={**BODY, "host": "hv2"})
    assert (unclear.status_code, unclear.json()["code"]) == (409, "host_not_named")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "host_unknown")
    assert (named.status_code, named.json()["host"]) == (201, "hv2")


@pytest.mark.parametrize(
    "change",
    [
        {"path": "srv/backups"},
        {"path": "/"},
        {"path": "/srv\x00"},
        {"name": ""},
        {"name": "n\n"},
        {"key": "secret"},
        {"key": "file:relative"},
        {"max_transfers": 0},
        {"reserve_bytes": -1},
        {"surprise": 1},
    ],
)
def test_what_cannot_be_right_is_refused(api: TestClient, change: dict[str, object]) -> None:
    answer = api.post("/api/v1/repositories", json={**BODY, **change})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [field["field"] for field in answer.json()["facts"]["fields"]] == [f"body.{name}" for name in change]


def test_a_list_tells_what_the_worker_saw(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        nas = add_repository(session).id
        add_sealed(session, "full", nas)
        add_repository(session, "away")
        error = RepositoryGone(path="/srv/away", reason="not mounted")
        repositories.note_look(session, nas, Look(RepositoryState.ready, None, 100, 1000, 1), datetime.now(UTC))
        repositories.note_look(session, "away", Look(RepositoryState.gone, error), datetime.now(UTC))
    first = api_on_both.get("/api/v1/repositories?limit=1").json()
    second = api_on_both.get(f"/api/v1/repositories?limit=1&cursor={first['next_cursor']}").json()
    (away,), (ready,) = first["items"], second["items"]
    assert second["next_cursor"] is None
    assert (away["name"], away["state"], away["error"]["code"], away["points"]) == ("away", "gone", "repository_gone", 0)
    assert (ready["state"], ready["free_bytes"], ready["stale"], ready["points"]) == ("ready", 100, False, 1)


def test_a_wish_stands_in_the_row_until_the_worker_has_looked(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        nas = add_repository(session)
        repositories.note_look(session, nas.id, Look(RepositoryState.ready), datetime.now(UTC), asked_at=nas.check_asked_at)
    assert api.get("/api/v1/repositories/nas").json()["check_asked_at"] is None
    checked, imported = api.post("/api/v1/repositories/nas/check"), api.post("/api/v1/repositories/nas/import")
    assert (checked.status_code, imported.status_code) == (202, 202)
    shown = api.get("/api/v1/repositories/nas").json()
    assert None not in (shown["check_asked_at"], shown["import_asked_at"])


def test_a_repository_is_forgotten_with_its_points_when_that_is_said(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        point_id = add_sealed(session, "full", add_repository(session).id).id
    refused = api.delete("/api/v1/repositories/nas")
    assert (refused.status_code, refused.json()["code"]) == (409, "repository_in_use")
    forgotten = api.delete("/api/v1/repositories/nas?forget_points=true")
    assert (forgotten.status_code, forgotten.json()["points"]) == (200, 1)
    assert api.get(f"/api/v1/recovery-points/{point_id}").status_code == 404
    assert api.get("/api/v1/repositories").json()["items"] == []


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/check"), ("POST", "/import")])
def test_a_repository_that_is_not_there_is_not_found(api: TestClient, method: str, path: str) -> None:
    answer = api.request(method, f"/api/v1/repositories/{uuid4()}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "repository_not_found")
