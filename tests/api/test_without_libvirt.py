"""The API on a machine without libvirt-python: it starts, lists, and takes a job for a host elsewhere."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.missing_packages import service_without
from tests.service_process import ServiceProcess


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with service_without(["libvirt", "libvirt_qemu"], tmp_path) as process:
        yield process


def test_the_api_starts_answers_a_list_and_takes_a_job(service: ServiceProcess) -> None:
    domains = service.request("GET", "/api/v1/domains")
    assert [domain["name"] for domain in domains.json()["items"]] == ["db1"]

    job_id = service.create("db1")

    assert service.job(job_id)["state"] == "queued"
    assert [job["id"] for job in service.request("GET", "/api/v1/jobs").json()["items"]] == [job_id]


@pytest.mark.parametrize("module", ["libvirt", "libvirt_qemu", "service.hypervisor.connection"])
def test_such_a_process_does_miss_libvirt(service: ServiceProcess, module: str) -> None:
    imported = subprocess.run(
        [sys.executable, "-c", f"import {module}"], env=service.environment, capture_output=True, text=True, check=False
    )
    assert imported.returncode == 1
    assert "ModuleNotFoundError: No module named 'libvirt" in imported.stderr
