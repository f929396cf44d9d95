"""The real application on a real database, asked over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_api
from service.config import Settings
from service.db import tokens
from service.db.engine import Database
from service.records.wake import Wake
from tests.api.world import DB1, add_domain, add_host


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, host_id="hv1")


@pytest.fixture
def wake() -> Wake:
    return Wake()


@pytest.fixture
def api(sqlite_database: Database, settings: Settings, wake: Wake) -> Iterator[TestClient]:
    """On SQLite, with one host `hv1` that has one domain `db1`."""
    with client_of(sqlite_database, settings, wake) as client:
        yield client


@pytest.fixture
def api_on_both(database: Database, settings: Settings, wake: Wake) -> Iterator[TestClient]:
    """The same, once on SQLite and once on PostgreSQL."""
    with client_of(database, settings, wake) as client:
        yield client


def client_of(database: Database, settings: Settings, wake: Wake) -> TestClient:
    with database.write() as session:
        token = tokens.create(session, "test")
        add_host(session)
        add_domain(session, "db1", DB1)
    application = create_api(settings, database, wake)
    # A fault must come back as an answer, as it would over the network.
    return TestClient(application, headers={"Authorization": f"Bearer {token.secret}"}, raise_server_exceptions=False)
