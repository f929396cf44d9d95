"""Migrates the schema of the database, and refuses to work on another schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

import migrations
from service.db import documents
from service.db.engine import SQLITE_BUSY_TIMEOUT_MS, Database, translated_errors
from service.errors import SchemaOutdated, SchemaUnknown

if TYPE_CHECKING:
    from alembic.config import Config

REVISION = "0024"
"""The newest migration. It is named here, because loading Alembic would take longer than the rest of a usual start."""
SQLITE_PATIENCE_MS = 600_000
"""Milliseconds that a process waits on SQLite for another process that migrates. Then it gives up with DatabaseUnavailable."""
ADVISORY_LOCK = 0x5717_7901
"""Number of an advisory lock on PostgreSQL. Its holder migrates. The others wait and then have nothing to do."""


def migrate(engine: Engine) -> None:
    """Bring the database to REVISION, in one transaction. Processes that start together migrate once.

    Raises DatabaseUnavailable, and SchemaUnknown if a newer version of Stillpoint has migrated the database.
    """
    if current_revision(engine) == REVISION:
        return
    with translated_errors(), alone(engine) as connection:
        revision = _revision(connection)
        if revision != REVISION:
            _upgrade(connection, revision)
            documents.write_missing(connection)


def current_revision(engine: Engine) -> str | None:
    """None: an empty database. Raises DatabaseUnavailable."""
    with translated_errors(), engine.execution_options(stillpoint_read_only=True).connect() as connection:
        return _revision(connection)


def check_schema(database: Database) -> None:
    """Raises SchemaOutdated, DatabaseUnavailable."""
    revision = current_revision(database.engine)
    if revision != REVISION:
        raise SchemaOutdated(found=revision or "none", needed=REVISION)


def alembic_config(connection: Connection) -> "Config":
    """The configuration of `alembic.ini`, for a connection of the service."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaUnknown(found=revision, needed=REVISION)
    command.upgrade(config, REVISION)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """A transaction during which no other migration runs. It commits at the end of the block."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            yield from _alone_on_sqlite(connection)
        else:
            from service.db.postgresql_limits import may_take_long

            with connection.begin(), may_take_long(connection):
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
                yield connection


def _alone_on_sqlite(connection: Connection) -> Iterator[Connection]:
    # Alembic copies a table to alter it and drops the old one, which would delete every row that refers to it.
    # The pragma has no effect inside a transaction, so it comes before.
    driver = connection.connection.cursor()
    driver.execute("PRAGMA foreign_keys=OFF")
    # The migration of a large database takes long, so processes that wait here need more patience than for an ordinary write.
    driver.execute(f"PRAGMA busy_timeout={SQLITE_PATIENCE_MS}")
    try:
        with connection.begin():  # BEGIN IMMEDIATE: other migrations wait here
            yield connection
            broken = connection.execute(text("PRAGMA foreign_key_check")).all()
            if broken:
                raise AssertionError(f"the migration left rows that refer to nothing: {broken}")
    finally:
        driver.execute("PRAGMA foreign_keys=ON")
        driver.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
        driver.close()
