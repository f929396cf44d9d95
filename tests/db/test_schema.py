"""The schema is made by migrations alone, on both databases, and is what `service.db.tables` says."""

import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from service.db import engine as engine_module
from service.db import schema
from service.db.base import Base
from service.db.engine import Database, open_engine
from service.db.tables import Job
from service.errors import DatabaseUnavailable, SchemaOutdated, SchemaUnknown
from service.records import queue
from tests.databases import sqlite_url
from tests.scenes.orders import a_snapshot


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_database_url)
    yield engine
    engine.dispose()


def test_an_empty_database_is_migrated_to_the_newest_revision(empty: Engine) -> None:
    assert schema.current_revision(empty) is None
    schema.migrate(empty)
    assert schema.current_revision(empty) == schema.REVISION
    schema.migrate(empty)
    assert schema.current_revision(empty) == schema.REVISION


def test_the_newest_revision_in_the_code_is_the_only_head_of_the_migrations(empty: Engine) -> None:
    with empty.connect() as connection:
        scripts = ScriptDirectory.from_config(schema.alembic_config(connection))
    assert scripts.get_heads() == [schema.REVISION]


def test_alembic_finds_no_difference_between_tables_and_migrations(empty: Engine) -> None:
    schema.migrate(empty)
    with empty.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_leave_the_very_definitions_that_the_tables_would(empty: Engine) -> None:
    """Conditions of partial indexes included, which Alembic does not compare."""
    schema.migrate(empty)
    with empty.begin() as connection:
        migrated = _definitions(connection)
        _drop_everything(connection)
        Base.metadata.create_all(connection)
        made_from_tables = _definitions(connection)
    assert migrated == made_from_tables
    assert any("lock_key IS NOT NULL" in definition for definition in migrated)


def test_every_migration_can_be_taken_back_and_done_again(empty: Engine) -> None:
    schema.migrate(empty)
    with empty.begin() as connection:
        command.downgrade(schema.alembic_config(connection), "base")
        assert _definitions(connection) == []
    schema.migrate(empty)
    assert schema.current_revision(empty) == schema.REVISION


def test_many_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(16)

    def start() -> None:
        engine = open_engine(empty_database_url)
        together.wait()
        try:
            schema.migrate(engine)
        except BaseException as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_one_that_opens_a_new_sqlite_file_waits_for_another_that_writes_there(tmp_path: Path) -> None:
    """SQLite says "locked" at once when a file shall be switched to WAL in which another connection is about to write."""
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    engine = open_engine(sqlite_url(tmp_path / "new.db"))
    found: Queue[str | None] = Queue()
    opens = threading.Thread(target=lambda: found.put(schema.current_revision(engine)))
    opens.start()
    with pytest.raises(Empty):
        found.get(timeout=0.5)
    other.execute("COMMIT")
    other.close()
    assert found.get(timeout=60) is None
    opens.join()
    engine.dispose()


def test_one_that_starts_waits_longer_for_a_migration_than_for_an_ordinary_write(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SQLITE_BUSY_TIMEOUT_MS", 1)
    second = open_engine(empty.url)
    migrated = threading.Event()

    def start() -> None:
        schema.migrate(second)
        migrated.set()

    with schema.alone(empty):
        waits = threading.Thread(target=start)
        waits.start()
        assert not migrated.wait(0.5)
        assert waits.is_alive()
    waits.join()
    second.dispose()
    assert migrated.is_set()


def test_a_migration_that_breaks_in_the_middle_leaves_nothing_behind(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE slots (in_the_way INTEGER)"))
        before = _definitions(connection)
    with pytest.raises((DatabaseUnavailable, ProgrammingError)):
        schema.migrate(empty)
    assert schema.current_revision(empty) is None
    with empty.begin() as connection:
        assert _definitions(connection) == before


def test_a_service_refuses_a_database_that_is_not_migrated(empty_database_url: str) -> None:
    database = Database(open_engine(empty_database_url))
    with pytest.raises(SchemaOutdated) as refusal:
        schema.check_schema(database)
    assert refusal.value.facts == {"found": "none", "needed": schema.REVISION}
    schema.migrate(database.engine)
    schema.check_schema(database)
    database.dispose()


def test_a_database_of_a_newer_version_is_left_alone(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaUnknown):
        schema.migrate(database.engine)
    with pytest.raises(SchemaOutdated):
        schema.check_schema(database)
    assert schema.current_revision(database.engine) == "9999"


def test_a_database_that_is_away_is_an_error_of_ours() -> None:
    engine = open_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseUnavailable):
        schema.migrate(engine)
    engine.dispose()


def test_migrating_on_sqlite_deletes_no_row_that_refers_to_another(sqlite_database: Database) -> None:
    """Alembic copies tables there; with foreign keys on, dropping the old one would take the labels along."""
    with sqlite_database.write() as session:
        queue.enqueue(session, a_snapshot(labels={"team": "db"}))
    with schema.alone(sqlite_database.engine) as connection:
        connection.execute(text("CREATE TABLE jobs_copy AS SELECT * FROM jobs"))
        connection.execute(text("DROP TABLE jobs"))
        connection.execute(text("ALTER TABLE jobs_copy RENAME TO jobs"))
        connection.execute(text("CREATE UNIQUE INDEX pk ON jobs (id)"))
    with sqlite_database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM job_labels")) == 1
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_nothing_is_written_as_json_null(database: Database) -> None:
    with database.write() as session:
        job_id = queue.enqueue(session, a_snapshot()).job_id
    with database.write() as session:
        _set_error(session, job_id)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs WHERE error IS NULL AND intent IS NULL")) == 1


def _set_error(session: Session, job_id: str) -> None:
    job = session.get_one(Job, job_id)
    job.error = {"code": "x"}
    session.flush()
    job.error = None


def _definitions(connection: Connection) -> list[str]:
    if connection.dialect.name == "sqlite":
        found = connection.scalars(
            text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name NOT IN ('alembic_version', 'sqlite_sequence')")
        )
        # A table that was renamed has its name in quotes.
        return sorted(re.sub(r'^CREATE TABLE "(\w+)"', r"CREATE TABLE \1", re.sub(r"\s+", " ", definition)) for definition in found)
    columns = (
        # By rank: the number of a column that was dropped is never used again.
        "SELECT concat_ws(' ', table_name, rank() OVER (PARTITION BY table_name ORDER BY ordinal_position),"
        " column_name, data_type, character_maximum_length, is_nullable)"
        " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    constraints = (
        "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conrelid <> to_regclass('alembic_version')"
    )
    return sorted(row for query in (columns, indexes, constraints) for row in connection.scalars(text(query)))


def _drop_everything(connection: Connection) -> None:
    Base.metadata.drop_all(connection)
