"""Fixtures for all tests: databases here, guests in tests/lab."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from service.db.engine import Database, open_engine
from tests.databases import PostgresCluster, migrate, postgres_cluster, sqlite_url

pytest_plugins = [
    "tests.left_hands",
    "tests.left_processes",
    "tests.quick_keys",
    "tests.shared_out",
    "tests.side_by_side",
    "tests.fakes.both_dialects",
    "tests.lab.fixtures",
    "tests.lab.windows.fixtures",
]

# What an example takes says something of the machine, and nothing of what is tested.
hypothesis.settings.register_profile("unhurried", deadline=None)
# More examples, for who changes what they test: pytest --hypothesis-profile=thorough
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL server. Where none can be had the tests that need it fail: half of the users run on it."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of a fresh, migrated database on PostgreSQL."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(sqlite_url(path))
    return path


@pytest.fixture
def new_sqlite_url(tmp_path: Path, _migrated_sqlite: Path) -> str:
    """The URL of a fresh, migrated database in a file of its own."""
    path = tmp_path / "stillpoint.db"
    shutil.copy(_migrated_sqlite, path)
    return sqlite_url(path)


@pytest.fixture
def sqlite_database(new_sqlite_url: str) -> Iterator[Database]:
    """A fresh, migrated database on SQLite, for tests in which the kind of database does not matter."""
    yield from _opened(new_sqlite_url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Both databases, one after the other, by URL: for tests that start processes."""
    name = "new_sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database: the test runs once on SQLite and once on PostgreSQL."""
    yield from _opened(database_url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Both databases, with nothing in them."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "empty.db")
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    with cluster.database(migrated=False) as url:
        yield url


def _opened(url: str) -> Iterator[Database]:
    opened = Database(open_engine(url))
    yield opened
    opened.dispose()
