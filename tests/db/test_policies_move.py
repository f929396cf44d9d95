"""The documents of policies get the fields that they have now, and go back to those that an earlier version reads."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from sqlalchemy import MetaData, Table, insert, select

from service.db import schema
from service.db.engine import Database, open_engine
from service.model.backup_policy import BackupPolicy
from tests.scenes.retained import a_policy

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def older() -> dict[str, Any]:
    """As version 0021 wrote it."""
    document = {**a_policy(retention={"keep_last": 2}), "verification": None}
    (track,) = document["tracks"]
    del track["copies"], track["retention"]["merge_at"]
    return document


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Database]:
    database = Database(open_engine(empty_database_url))
    move(database, "0021")
    with database.engine.begin() as connection:
        policies = Table("policies", MetaData(), autoload_with=connection)
        row = {"id": "p1", "name": "production", "document": json_in(older(), policies), "revision": 1}
        connection.execute(insert(policies).values(row | {"created_at": BEGAN, "updated_at": BEGAN}))
    yield database
    database.dispose()


def move(database: Database, revision: str, *, down: bool = False) -> None:
    with schema.alone(database.engine) as connection:
        (command.downgrade if down else command.upgrade)(schema.alembic_config(connection), revision)


def json_in(document: dict[str, Any], policies: Table) -> Any:
    return document if "JSON" in str(policies.c.document.type) else json.dumps(document)


def stored(database: Database) -> dict[str, Any]:
    with database.engine.connect() as connection:
        policies = Table("policies", MetaData(), autoload_with=connection)
        found: Any = connection.scalar(select(policies.c.document))
    document: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
    return document


def test_a_policy_of_the_version_before_is_read_after_the_upgrade(old: Database) -> None:
    move(old, "0022")
    assert stored(old) == BackupPolicy.from_document(stored(old)).as_document() == a_policy(retention={"keep_last": 2})


def test_a_policy_goes_back_to_what_the_version_before_reads(old: Database) -> None:
    move(old, "0022")
    move(old, "0021", down=True)
    assert stored(old) == older()
