"""Nothing is open: who may call, and how a token that no longer counts is noticed."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from service.api import auth
from service.api.auth import TokenCheck
from service.db import tokens
from service.db.engine import Database
from service.db.tables import Token
from service.errors import DatabaseUnavailable, TokenRefused

EVERYTHING = [
    "/metrics",
    "/openapi.json",
    "/docs",
    "/api/v1/jobs",
    "/api/v1/domains",
    "/api/v1/hosts",
    "/api/v1/recovery-points",
    "/nowhere",
]


@pytest.mark.parametrize("path", EVERYTHING)
def test_without_a_token_there_is_nothing_to_see(api: TestClient, path: str) -> None:
    del api.headers["Authorization"]
    answer = api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
    assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_and_readiness_need_no_token(api: TestClient, path: str) -> None:
    del api.headers["Authorization"]
    assert api.get(path).status_code == 200


@pytest.mark.parametrize("header", ["Bearer sp_unknown", "bearer sp_unknown", "Bearer \xfc"])
def test_an_unknown_token_is_refused(api: TestClient, header: str) -> None:
    answer = api.get("/api/v1/jobs", headers=[("Authorization", header.encode("latin-1"))])  # type: ignore[arg-type]  # the client's type knows text only
    assert (answer.status_code, answer.json()["code"]) == (401, "token_refused")
    assert answer.headers["www-authenticate"] == 'Bearer realm="stillpoint"'


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "sp_something"])
def test_a_header_that_holds_no_bearer_token_is_a_missing_token(api: TestClient, header: str) -> None:
    assert api.get("/api/v1/jobs", headers={"Authorization": header}).json()["code"] == "token_missing"


def test_a_token_works_until_it_is_revoked(api: TestClient, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "CACHE_SECONDS", 0.0)
    with sqlite_database.write() as session:
        new = tokens.create(session, "laptop")
    as_laptop = {"Authorization": f"Bearer {new.secret}"}
    before = api.get("/api/v1/jobs", headers=as_laptop)
    with sqlite_database.write() as session:
        tokens.revoke(session, new.id)
    after = api.get("/api/v1/jobs", headers=as_laptop)

    assert (before.status_code, after.status_code, after.json()["code"]) == (200, 401, "token_refused")


def test_an_expired_token_is_refused(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        expired = tokens.create(session, "old", expires_in=timedelta(seconds=-1))
        valid = tokens.create(session, "new", expires_in=timedelta(days=1))

    assert api.get("/api/v1/jobs", headers={"Authorization": f"Bearer {expired.secret}"}).status_code == 401
    assert api.get("/api/v1/jobs", headers={"Authorization": f"Bearer {valid.secret}"}).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_a_browser_can_log_in_to_the_documentation_with_the_token_as_password(
    api: TestClient, sqlite_database: Database, path: str
) -> None:
    with sqlite_database.write() as session:
        new = tokens.create(session, "browser")
    password = base64.b64encode(f"me:{new.secret}".encode()).decode()

    asked = api.get(path, headers={"Authorization": ""})
    answer = api.get(path, headers={"Authorization": f"Basic {password}"})

    assert asked.headers["www-authenticate"].startswith("Basic ")
    assert answer.status_code == 200


def test_the_use_of_a_token_is_noted_once_a_minute(database: Database) -> None:
    with database.write() as session:
        new = tokens.create(session, "laptop")
    check = TokenCheck(database)
    assert [asyncio.run(check.token_id(new.secret)), asyncio.run(check.token_id(new.secret))] == [new.id, new.id]
    check.close()

    with database.read() as session:
        used = session.get_one(Token, new.id).last_used_at
    assert used is not None
    assert datetime.now(UTC) - used < timedelta(seconds=10)


def test_a_flood_of_wrong_tokens_costs_no_statement_each_and_a_right_one_passes(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        new = tokens.create(session, "laptop")
    check = TokenCheck(sqlite_database)
    statements: list[str] = []
    event.listen(sqlite_database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    async def flood() -> list[object]:
        wrong = [check.token_id(f"wrong {n}") for n in range(400)]
        return await asyncio.gather(*wrong, check.token_id(new.secret), return_exceptions=True)

    *refused, passed = asyncio.run(flood())
    check.close()

    assert {type(answer) for answer in refused} == {TokenRefused}
    assert passed == new.id
    assert len([statement for statement in statements if "tokens" in statement and "SELECT" in statement]) <= 10


def test_a_database_that_is_away_is_told_to_all_who_asked_together(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise DatabaseUnavailable(reason="it is away")

    monkeypatch.setattr(tokens, "find_valid", away)
    check = TokenCheck(sqlite_database)

    async def ask() -> list[object]:
        return await asyncio.gather(*(check.token_id(f"token {n}") for n in range(10)), return_exceptions=True)

    assert {type(answer) for answer in asyncio.run(ask())} == {DatabaseUnavailable}
