"""A host with SQLite needs no driver of PostgreSQL: the package has it as an extra."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import service as package
from tests.missing_packages import service_without
from tests.service_process import ServiceProcess

OF_THE_DRIVER = {"service.db.postgresql_limits", "service.db.postgresql_trips"}
"""Loaded for a database of PostgreSQL only."""


@pytest.fixture
def service(tmp_path: Path) -> ServiceProcess:
    return service_without(["psycopg"], tmp_path)


def test_every_other_module_can_be_loaded(service: ServiceProcess) -> None:
    modules = {module.name for module in pkgutil.walk_packages(package.__path__, "service.")}
    assert modules > OF_THE_DRIVER
    for module in OF_THE_DRIVER:
        assert "No module named 'psycopg'" in loaded([module], service).stderr
    done = loaded(sorted(modules - OF_THE_DRIVER), service)
    assert done.returncode == 0, done.stderr


def loaded(modules: list[str], service: ServiceProcess) -> subprocess.CompletedProcess[str]:
    """In a process that finds no psycopg, and for which libnbd is there: only Debian's own Python has that, and it never has psycopg."""
    libnbd = "import sys, types\nsys.modules['nbd'] = types.ModuleType('nbd')"
    text = f"{libnbd}\nimport importlib\nfor name in {modules!r}: importlib.import_module(name)"
    return subprocess.run([sys.executable, "-c", text], env=service.environment, capture_output=True, text=True, check=False, timeout=60)


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
