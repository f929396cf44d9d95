"""How often a request goes to PostgreSQL and back: over a network, that is what it waits for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from service.api import auth
from service.config import Settings
from service.db.engine import Database, open_engine
from service.records.wake import Wake
from tests.api.conftest import client_of
from tests.postgresql_relay import PostgresqlRelay


@pytest.fixture
def relay(postgres_url: str, tmp_path: Path) -> Iterator[PostgresqlRelay]:
    with PostgresqlRelay(postgres_url, tmp_path) as relay:
        yield relay


@pytest.fixture
def database(relay: PostgresqlRelay) -> Iterator[Database]:
    opened = Database(open_engine(relay.url))
    yield opened
    opened.dispose()


@pytest.fixture
def api(database: Database, settings: Settings, wake: Wake, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """It has seen its token, made its connections, and planned its statements (the driver does so at the sixth time)."""
    monkeypatch.setattr(auth, "CACHE_SECONDS", 600.0)
    with client_of(database, settings, wake) as client:
        for _ in range(30):
            assert _create(client) == 202
        yield client


def test_creating_a_job_takes_five(api: TestClient, relay: PostgresqlRelay) -> None:
    """The domain; the turn and the time; the row; its text, which is the answer; the commit."""
    assert _round_trips(relay, api) <= 5


def test_a_read_takes_two(database: Database, relay: PostgresqlRelay) -> None:
    def read() -> None:
        with database.read() as session:
            session.execute(text("SELECT 1"))

    for _ in range(10):
        read()
    before = relay.round_trips
    read()
    assert relay.round_trips - before == 2


def _round_trips(relay: PostgresqlRelay, api: TestClient) -> int:
    before = relay.round_trips
    assert _create(api) == 202
    return relay.round_trips - before


def _create(api: TestClient) -> int:
    return api.post("/api/v1/jobs", json={"kind": "snapshot", "domain": "db1"}).status_code
