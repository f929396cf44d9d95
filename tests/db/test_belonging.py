"""A state folder knows its database, and no other one is taken for it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from service.config import Settings
from service.db import belonging
from service.db.engine import Database, open_engine
from service.db.schema import alembic_config, alone, migrate
from service.errors import DatabaseForeign, DatabaseLost


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(open_engine(empty_database_url))
    yield database
    database.dispose()


def test_the_id_of_the_database_is_noted_once_and_is_private(database: Database, settings: Settings) -> None:
    belonging.check(settings, database.engine)
    belonging.note(settings, database.engine)
    with database.read() as session:
        assert belonging.marker_of(settings).read_text().strip() == session.scalar(text("SELECT id FROM database_identity"))
    assert belonging.marker_of(settings).stat().st_mode & 0o777 == 0o600
    belonging.check(settings, database.engine)


@pytest.mark.parametrize("trace", ["admin.token", belonging.MARKER])
def test_an_empty_database_beside_a_trace_of_an_earlier_start_is_refused(empty: Database, settings: Settings, trace: str) -> None:
    settings.state_dir.mkdir()
    (settings.state_dir / trace).write_text("something\n")
    with pytest.raises(DatabaseLost) as lost:
        belonging.check(settings, empty.engine)
    assert str(settings.state_dir / trace) in lost.value.facts["traces"]
    # Nothing was made, either: the next look finds the same.
    with pytest.raises(DatabaseLost):
        belonging.check(settings, empty.engine)


def test_an_empty_database_in_a_fresh_state_folder_is_welcome(empty: Database, settings: Settings) -> None:
    belonging.check(settings, empty.engine)


def test_another_database_is_refused(database: Database, settings: Settings) -> None:
    settings.state_dir.mkdir()
    belonging.marker_of(settings).write_text("7f1c0a54-6d0e-4c1b-9a35-0f6f7f1f2c11\n")
    with pytest.raises(DatabaseForeign):
        belonging.check(settings, database.engine)


def test_a_copy_of_the_same_database_is_welcome(sqlite_database: Database, settings: Settings, tmp_path: Path) -> None:
    belonging.note(settings, sqlite_database.engine)
    sqlite_database.dispose()
    assert sqlite_database.engine.url.database is not None
    copy = tmp_path / "copy.db"
    shutil.copy(sqlite_database.engine.url.database, copy)
    belonging.check(settings, open_engine(f"sqlite:///{copy}"))


def test_one_of_an_earlier_version_is_brought_up_to_date_and_then_noted(empty: Database, settings: Settings) -> None:
    with alone(empty.engine) as connection:
        command.upgrade(alembic_config(connection), "0003")
    settings.state_dir.mkdir()
    settings.token_file.write_text("sp_x\n")
    belonging.check(settings, empty.engine)
    migrate(empty.engine)
    belonging.note(settings, empty.engine)
    belonging.check(settings, empty.engine)
    assert belonging.marker_of(settings).exists()


def test_two_databases_have_two_ids(tmp_path: Path) -> None:
    engines = [open_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "two")]
    for engine in engines:
        migrate(engine)
    ids = []
    for engine in engines:
        with engine.connect() as connection:
            ids.append(connection.scalar(text("SELECT id FROM database_identity")))
        engine.dispose()
    assert len(set(ids)) == 2
