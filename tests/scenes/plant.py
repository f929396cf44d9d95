"""A host with workers on it, in this process."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.app import handlers
from service.config import Settings
from service.db.engine import Database
from service.db.tables import Domain, Job
from service.freeze.guard import NoGuards
from service.records.wake import Wake
from service.worker.worker import Worker
from tests.fakes import FakeDomain
from tests.scenes.host import HOST, Scene

PATIENCE_S = 15.0
METHODS = {
    "worker-claims": "_recover_interrupted",
    "worker-leases": "_release_expired",
    "worker-inventory": "_publish_host",
    "worker-repositories": "_look_at_repositories",
}
"""What each loop of a worker does in every turn."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)


class Plant:
    """A scene with workers on it, stopped at the end."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.scene = Scene(database, folder)
        self.wake = Wake()
        self.workers: list[Worker] = []
        self._folder = folder

    def start(self, **settings: Any) -> Worker:
        worker = self.worker(**settings)
        worker.start()
        return worker

    def worker(self, **settings: Any) -> Worker:
        usual: dict[str, Any] = {"poll_seconds": 0.05, "lease_seconds": 3, "inventory_seconds": 5, "overlay_reserve_bytes": 4096}
        chosen = Settings(state_dir=self._folder / "state", host_id=HOST, **(usual | settings))
        worker = Worker(chosen, self.scene.database, self.scene.host, self.wake, NoGuards(), handlers=handlers(chosen))
        self.workers.append(worker)
        return worker

    def hang(self, domain: FakeDomain, call: str) -> threading.Event:
        return self.scene.hang(call, domain)

    def wait_end(self, job_id: str) -> Job:
        wait_for(lambda: self.scene.job(job_id).state in ("succeeded", "failed", "cancelled"), f"the end of job {job_id}")
        return self.scene.job(job_id)

    def wait_call(self, domain: FakeDomain, call: str) -> None:
        wait_for(lambda: call in domain.log, f"{call} on {domain.name()}")

    def frozen(self) -> bool | None:
        """As it is published."""
        with self.scene.database.read() as session:
            row = session.get(Domain, (HOST, self.scene.domain.uuid()))
            return row.document["frozen"] if row else None

    def close(self) -> None:
        self.scene.let_go()
        for worker in self.workers:
            worker.stop(5)
