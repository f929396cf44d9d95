"""Backups of real guests by a worker in this process, and what is in the repository afterwards, as `qemu-img` alone shows it."""

import subprocess
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.app import handlers
from service.config import Settings
from service.db.engine import Database, database_now
from service.db.tables import Job, RecoveryPoint
from service.freeze.guard import NoGuards
from service.hypervisor.connection import HostConnection
from service.jobs.kind import Host
from service.jobs.run import JobRun
from service.model.manifest import Manifest
from service.records import queue, repositories
from service.records.queue import Claim, NewJob
from service.records.repositories import Registration
from service.repository.store import Repository
from service.worker.execution import Execution
from service.worker.recovery import Recovery
from tests.lab.daemon import uri

HOST = "hv1"


class BackupScene:
    """One repository, one database, and a worker that runs each job at once. `path`: of the repository."""

    def __init__(self, database: Database, folder: Path, *, path: Path | None = None, **settings: Any) -> None:
        self.database = database
        self.settings = Settings(state_dir=folder / "state", host_id=HOST, **({"overlay_reserve_bytes": 16 << 20} | settings))
        self.connection = HostConnection(uri())
        self.handlers = handlers(self.settings)
        self.host = Host(self.connection.guest, self.connection.guests, NoGuards(), self.connection)
        self.path = path or folder / "repository"
        with database.write() as session:
            for lane in ("quick", "transfer", "maintenance"):
                queue.ensure_slots(session, f"host:{HOST}:{lane}", 4)
            self.repository_id = repositories.add(session, Registration("main", str(self.path), HOST), database_now(session)).id
        with Repository(str(self.path), self.repository_id) as repository:
            repository.create()

    def close(self) -> None:
        self.connection.close()

    def ask(self, domain: str, kind: str = "backup", *, labels: Mapping[str, str] | None = None, **request: Any) -> str:
        document = {
            "kind": kind,
            "domain": domain,
            "compare": "nothing",
            **({"repository": self.repository_id} if kind == "backup" else {}),
            **request,
        }
        guest = self.connection.guest(domain)
        new = NewJob(kind=kind, domain_id=guest.uuid, domain_name=guest.name, host_id=HOST, request=document, labels=dict(labels or {}))
        with self.database.write() as session:
            return queue.enqueue(session, new).job_id

    def claim(self) -> JobRun:
        with self.database.write() as session:
            claim = queue.claim(session, HOST, f"{HOST}:{uuid.uuid4()}", 600)
        assert isinstance(claim, Claim)
        return JobRun(claim, self.database, threading.Event())

    def execute(self, run: JobRun | None = None) -> None:
        Execution(self.host, self.handlers).execute(run or self.claim())

    def run(self, domain: str, kind: str = "backup", **request: Any) -> Job:
        job_id = self.ask(domain, kind, **request)
        self.execute()
        return self.job(job_id)

    def recover(self, job_id: str) -> Job:
        with self.database.write() as session:
            queue.release_expired(session, HOST, all_running=True)
        Recovery(self.database, self.connection, self.host, self.handlers).recover(job_id)
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def point(self, job: Job) -> RecoveryPoint:
        assert job.recovery_point is not None
        with self.database.read() as session:
            return session.get_one(RecoveryPoint, job.recovery_point["id"])

    def manifest(self, job: Job) -> Manifest:
        with Repository(str(self.path), self.repository_id) as repository:
            return repository.point(self.point(job).folder or "")

    def image(self, job: Job, target: str = "vda") -> Path:
        return self.path / (self.point(job).folder or "") / f"{target}.qcow2"

    def levels(self, job: Job) -> dict[str, str]:
        assert job.result is not None, job.error
        return {disk["target"]: disk["level"] for disk in job.result["backup"]["disks"]}


def convert(image: Path, target: Path) -> Path:
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(target)], check=True, capture_output=True)
    return target


def are_identical(image: Path, other: Path) -> bool:
    """What a guest would see of both."""
    return subprocess.run(["qemu-img", "compare", "-U", str(image), str(other)], check=False, capture_output=True).returncode == 0
