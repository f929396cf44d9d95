"""A host with SQLite needs no driver of PostgreSQL: the package has it as an extra."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.db.engine import Database, open_engine
from tests.api.world import add_domain, add_host
from tests.databases import migrate, sqlite_url
from tests.service_process import ServiceProcess

REFUSES = 'raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)\n'


@pytest.fixture
def service(tmp_path: Path) -> ServiceProcess:
    """`stillpoint serve` that finds no psycopg, with one host and its domain `db1` in the database. It is not started."""
    hidden, state_dir = tmp_path / "hidden", tmp_path / "state"
    for folder in (hidden, state_dir):
        folder.mkdir()
    (hidden / "psycopg.py").write_text(REFUSES)
    url = sqlite_url(state_dir / "stillpoint.db")
    migrate(url)
    database = Database(open_engine(url))
    with database.write() as session:
        add_host(session)
        add_domain(session, "db1")
    database.dispose()
    process = ServiceProcess(state_dir, libvirt_uri="test:///default", command="serve")
    process.environment["PYTHONPATH"] = str(hidden)
    return process


def test_a_service_on_sqlite_starts_answers_a_list_and_takes_a_job(service: ServiceProcess) -> None:
    with service:
        job_id = service.create("db1")

        assert service.job(job_id)["state"] == "queued"
        assert [job["id"] for job in service.request("GET", "/api/v1/jobs").json()["items"]] == [job_id]


def test_a_database_of_postgresql_is_refused_with_the_package_to_install(service: ServiceProcess) -> None:
    service.environment["STILLPOINT_DATABASE_URL"] = "postgresql+psycopg://somebody@localhost/stillpoint"

    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve"], env=service.environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert ended.returncode != 0
    assert "stillpoint[postgres]" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
