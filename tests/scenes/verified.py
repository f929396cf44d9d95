"""A host that runs verifies of the points of a repository."""

from pathlib import Path
from typing import Any

from service.db.engine import Database
from service.db.tables import Job
from service.jobs.verify import Verify
from service.model.kinds import JobKind
from service.records import queue
from service.records.queue import NewJob
from tests.scenes.host import HOST, Scene
from tests.scenes.sealed import Sealed


class Verifying:
    def __init__(self, database: Database, folder: Path, sealed: Sealed, **options: Any) -> None:
        """`options` are those of the handler."""
        self.database = database
        self.sealed = sealed
        self.scene = Scene(database, folder)
        if options:
            self.use(Verify(**options))
        with database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:maintenance", 1)

    def use(self, handler: Verify) -> None:
        self.scene.handlers[JobKind.verify.value] = handler  # type: ignore[index]

    def ask(self, point_id: str, **request: Any) -> str:
        new = NewJob(
            kind=JobKind.verify.value,
            domain_id=None,
            domain_name=None,
            host_id=HOST,
            request={"kind": "verify", "recovery_point": point_id, **request},
            labels={},
            point_id=point_id,
            repository_id=self.sealed.id,
        )
        with self.database.write() as session:
            return queue.enqueue(session, new).job_id

    def verify(self, point_id: str, **request: Any) -> Job:
        job_id = self.ask(point_id, **request)
        self.scene.execution.execute(self.scene.claim())
        return self.scene.job(job_id)
