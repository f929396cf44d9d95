"""A host that carries the points of a repository to a copy and back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.db.engine import Database, database_now
from service.db.tables import CopiedPoint, Copy, CopyProof, Job
from service.model.copied import CopyAction
from service.model.copy_target import LockMode, target_of
from service.model.kinds import JobKind
from service.records import copies, queue
from service.records.copies import CopyRegistration
from service.records.queue import NewJob
from service.repository.catalog import catalog_of
from service.worker import repository_import
from service.worker.repository_import import ImportResult
from tests.scenes.host import HOST, Scene
from tests.scenes.sealed import Sealed


class Copied:
    """A repository of one full point and two increments: `full`, `middle`, `top`. Their copy is in a folder until another is registered."""

    def __init__(self, database: Database, folder: Path, made: Sealed) -> None:
        self.database = database
        self.folder = folder
        self.sealed = made.copied(folder / "repository", guest=folder)
        self.sealed.register(database)
        self.sealed.list_all(database)
        self.full, self.middle, self.top = self.sealed.points
        self.scene = Scene(database, folder)
        with database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:sending", 1)
        self.place = folder / "copy"
        self.place.mkdir()
        self.copy_id = ""

    def register(self, target: dict[str, Any] | None = None, *, key: bytes | None = None, **options: Any) -> str:
        if key is not None:
            file = self.folder / "credentials"
            file.write_bytes(key)
            options["key_reference"] = f"file:{file}"
        wanted = CopyRegistration("offsite", target_of(target or {"kind": "folder", "path": str(self.place)}), **options)
        with self.database.write() as session:
            self.copy_id = copies.add(session, self.sealed.id, wanted, database_now(session)).id
        return self.copy_id

    def register_locked(self, target: dict[str, Any], key: bytes, days: int = 30) -> str:
        return self.register(target, key=key, retain_days=days, lock_mode=LockMode.compliance)

    def ask(self, action: CopyAction = CopyAction.send, *point_ids: str, **request: Any) -> str:
        asked = {"kind": JobKind.copy.value, "repository": self.sealed.id, "copy": self.copy_id, "action": action.value, **request}
        asked["recovery_points"] = list(point_ids) or None
        new = NewJob(JobKind.copy.value, None, None, HOST, asked, {}, repository_id=self.sealed.id, copy_id=self.copy_id)
        with self.database.write() as session:
            return queue.enqueue(session, new).job_id

    def run(self, action: CopyAction = CopyAction.send, *point_ids: str, **request: Any) -> Job:
        job_id = self.ask(action, *point_ids, **request)
        self.scene.execution.execute(self.scene.claim())
        return self.scene.job(job_id)

    def merge(self, point_id: str) -> Job:
        """Into what stands on it. Then the point is removed."""
        asked = {"kind": JobKind.merge.value, "repository": self.sealed.id, "recovery_points": [point_id], "remove": True}
        new = NewJob(JobKind.merge.value, None, None, HOST, asked, {}, repository_id=self.sealed.id)
        with self.database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:maintenance", 1)
            job_id = queue.enqueue(session, new).job_id
        self.scene.execution.execute(self.scene.claim())
        return self.scene.job(job_id)

    def prune(self, *point_ids: str) -> Job:
        asked = {"kind": JobKind.prune.value, "repository": self.sealed.id, "recovery_points": list(point_ids)}
        new = NewJob(JobKind.prune.value, None, None, HOST, asked, {}, repository_id=self.sealed.id)
        with self.database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:maintenance", 1)
            job_id = queue.enqueue(session, new).job_id
        self.scene.execution.execute(self.scene.claim())
        return self.scene.job(job_id)

    def imports(self) -> ImportResult:
        """As the worker of the repository does after a fetch."""
        result, now = ImportResult(), datetime.now(UTC)
        with self.sealed.opened() as repository:
            catalog = catalog_of(repository_import.listed_twice(repository))
        with self.database.write() as session:
            repository_import.put_on_record(session, self.sealed.id, catalog.points, result, now)
            repository_import.note_missing(session, self.sealed.id, result, now)
        return result

    def is_good(self, point_id: str) -> bool:
        """Every byte, and what the guest sees."""
        with self.sealed.opened() as repository:
            asked = {"folder": self.sealed.manifests[point_id].folder, "checks": ["bytes", "structure"]}
            seen = repository.call("verify_point", asked)
        return bool(seen["bytes"]["ok"] and seen["structure"]["ok"])

    def copy(self) -> Copy:
        with self.database.read() as session:
            return copies.get(session, self.sealed.id, self.copy_id)

    def on_copy(self) -> dict[str, CopiedPoint]:
        with self.database.read() as session:
            rows = session.scalars(select(CopiedPoint).where(CopiedPoint.copy_id == self.copy_id))
            return {row.point_id: row for row in rows}

    def states(self) -> dict[str, str]:
        return {point_id: row.state for point_id, row in self.on_copy().items()}

    def proofs(self) -> list[CopyProof]:
        with self.database.read() as session:
            return list(session.scalars(select(CopyProof).where(CopyProof.copy_id == self.copy_id)))
