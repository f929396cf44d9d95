"""The file of a SQLite database: it can be one, it is still the same, and nobody else can read it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from service.db.engine import Database, open_engine
from service.db.tables import Token
from service.db.writable import Trial
from service.errors import DatabaseReplaced, DatabaseUnavailable, DatabaseUnusable
from tests.databases import migrate, sqlite_url


def path_of(database: Database) -> Path:
    assert database.engine.url.database is not None
    return Path(database.engine.url.database)


def delete(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def replace(path: Path) -> None:
    other = path.with_name("other.db")
    shutil.copy(path, other)
    delete(path)
    other.rename(path)


@pytest.mark.parametrize("harm", [delete, replace])
def test_a_file_that_was_deleted_or_replaced_is_not_written_to_any_more(sqlite_database: Database, harm: Callable[[Path], None]) -> None:
    path = path_of(sqlite_database)
    with sqlite_database.write() as session:
        session.execute(text("SELECT 1"))
    harm(path)
    for _ in range(2):
        with pytest.raises(DatabaseReplaced), sqlite_database.write() as session:
            session.execute(text("DELETE FROM tokens"))
    with pytest.raises(DatabaseReplaced):
        Trial(sqlite_database).check()


def test_no_new_file_is_made_in_the_place_of_one_that_is_gone(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        session.execute(text("SELECT 1"))
    delete(path_of(sqlite_database))
    sqlite_database.dispose()
    with pytest.raises(DatabaseReplaced), sqlite_database.read() as session:
        session.execute(text("SELECT 1"))
    assert not path_of(sqlite_database).exists()


def test_a_file_that_is_put_back_is_written_to_again(sqlite_database: Database) -> None:
    path = path_of(sqlite_database)
    with sqlite_database.write() as session:
        session.execute(text("SELECT 1"))
    path.rename(path.with_name("aside"))
    with pytest.raises(DatabaseReplaced), sqlite_database.write() as session:
        session.execute(text("SELECT 1"))
    path.with_name("aside").rename(path)
    Trial(sqlite_database).check()


def garbage(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 this is not a database" * 100)


def garbage_with_the_right_beginning(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)


def folder(path: Path) -> None:
    path.mkdir()


def socket_like(path: Path) -> None:
    os.mkfifo(path)


def in_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("not a folder")


@pytest.mark.parametrize("what", [garbage, garbage_with_the_right_beginning, folder, socket_like, in_a_file])
def test_what_is_not_a_database_is_one_clear_error(tmp_path: Path, what: Callable[[Path], None]) -> None:
    path = tmp_path / "state" / "stillpoint.db"
    path.parent.mkdir()
    what(path)
    database = Database(open_engine(sqlite_url(path)))
    with pytest.raises(DatabaseUnavailable) as error, database.read() as session:
        session.execute(text("SELECT 1"))
    assert error.value.code == ("database_unavailable" if what is garbage_with_the_right_beginning else "database_unusable")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_so_is_a_file_that_this_user_may_not_write(tmp_path: Path) -> None:
    path = tmp_path / "stillpoint.db"
    migrate(sqlite_url(path))
    path.chmod(0o400)
    with pytest.raises(DatabaseUnusable), Database(open_engine(sqlite_url(path))).read() as session:
        session.execute(text("SELECT 1"))


def test_pages_that_are_damaged_are_the_database_and_not_a_fault_of_the_service(sqlite_database: Database) -> None:
    path = path_of(sqlite_database)
    with sqlite_database.read() as session:
        session.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    sqlite_database.dispose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(DatabaseUnavailable), sqlite_database.read() as session:
        session.query(Token).all()


def test_a_parameter_that_the_driver_does_not_know_is_one_clear_error() -> None:
    database = Database(open_engine("postgresql+psycopg://u@127.0.0.1:1/d?no_such_option=x"))
    with pytest.raises(DatabaseUnavailable), database.read() as session:
        session.execute(text("SELECT 1"))


def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = Database(open_engine(sqlite_url(tmp_path / "state" / "stillpoint.db")))
        with database.write() as session:
            session.execute(text("CREATE TABLE one (n INTEGER)"))
        files = sorted((tmp_path / "state").iterdir())
        assert [file.name for file in files] == ["stillpoint.db", "stillpoint.db-shm", "stillpoint.db-wal"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        database.dispose()
    finally:
        os.umask(before)
