"""A repository that a real service knows, and jobs that copy into it."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.model.lifecycle import PhaseName
from tests.service_process import FINAL, ServiceProcess

AFTER_THE_WINDOW = tuple(name.value for name in (PhaseName.transfer, PhaseName.compare, PhaseName.seal, PhaseName.merge))


def register(service: ServiceProcess, path: Path, name: str = "nas", **more: Any) -> str:
    """The id of the repository, once the worker has made it ready or has found it so."""
    answer = service.request("POST", "/api/v1/repositories", json={"name": name, "path": str(path), **more})
    assert answer.status_code == 201, answer.text
    eventually(lambda: repository(service, name)["state"] == "ready", lambda: repository(service, name))
    return str(repository(service, name)["id"])


def repository(service: ServiceProcess, id_or_name: str) -> dict[str, Any]:
    return _read(service, f"repositories/{id_or_name}")


def point(service: ServiceProcess, point_id: str) -> dict[str, Any]:
    return _read(service, f"recovery-points/{point_id}")


def ask(service: ServiceProcess, kind: str, **body: Any) -> str:
    """The id of a new job that names no domain."""
    answer = service.request("POST", "/api/v1/jobs", json={"kind": kind, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def wait_for_phase(service: ServiceProcess, job_id: str, phases: Sequence[str] = AFTER_THE_WINDOW) -> dict[str, Any]:
    """The job as soon as it is in one of the phases, or has ended."""
    eventually(lambda: (job := service.job(job_id))["phase"] in phases or job["state"] in FINAL, lambda: service.job(job_id))
    return service.job(job_id)


def eventually(condition: Callable[[], object], otherwise: Callable[[], object] = lambda: "it never came to that") -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


def _read(service: ServiceProcess, path: str) -> dict[str, Any]:
    answer = service.request("GET", f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document
