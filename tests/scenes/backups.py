"""A scene with a repository: the domain is a fake, its disks and the repository are real."""

import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database, database_now
from service.db.tables import Job, RecoveryPoint
from service.hypervisor.checkpoints import is_ours
from service.model.manifest import Manifest
from service.model.repository import PARTIAL_PREFIX
from service.records import queue, repositories
from service.records.repositories import Registration
from service.repository.store import Repository
from tests.fakes import FakeDisk, FakeDomain
from tests.scenes.host import HOST, Scene

SIZE = 16 << 20


class BackupScene(Scene):
    """`steps`: what happens in the steps of the repository. Each disk has a block of its own data."""

    def __init__(self, database: Database, folder: Path, disks: Sequence[str] = ("vda",), **settings: Any) -> None:
        usual = {"repository_patience_seconds": 0.0, "repository_silence_seconds": 30}
        super().__init__(database, folder, disks, **(usual | settings))
        self.domain.checkpoint_store.are_real = True
        self.path = folder / "repository"
        with database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:transfer", 4)
            self.repository_id = repositories.add(session, Registration("main", str(self.path), HOST), database_now(session)).id
        with Repository(str(self.path), self.repository_id) as repository:
            repository.create()

    def add(self, name: str, disks: Sequence[str] = ("vda",), **options: Any) -> FakeDomain:
        domain = super().add(name, disks, **options)
        domain.checkpoint_store.are_real = True
        return domain

    def disk(self, target: str, domain: str = "db1", **options: Any) -> FakeDisk:
        disk = super().disk(target, domain, **{"size": SIZE, **options})
        make_image(str(disk.source), disk.format, disk.size)
        return disk

    def ask(self, kind: str = "backup", domain: FakeDomain | None = None, *, max_attempts: int = 10, **request: Any) -> str:
        return super().ask(kind, domain, max_attempts=max_attempts, **{"repository": self.repository_id, **request})

    def run(self, kind: str = "backup", domain: FakeDomain | None = None, **request: Any) -> Job:
        return super().run(kind, domain, **request)

    def run_again(self, job_id: str) -> Job:
        """The next attempt of a job that recovery has put into the queue."""
        self.execution.execute(self.claim())
        return self.job(job_id)

    # --- what there is afterwards -----------------------------------------------------------------

    def manifests(self) -> list[Manifest]:
        """Of all points in the repository, the oldest first."""
        with Repository(str(self.path), self.repository_id) as repository:
            stored = repository.points()
        assert [point.error for point in stored if point.error is not None] == []
        return sorted((point.manifest for point in stored if point.manifest is not None), key=lambda manifest: manifest.point_in_time_at)

    def sealed(self) -> list[RecoveryPoint]:
        return [point for point in self.points() if point.state == "sealed"]

    def partial_folders(self) -> list[str]:
        return [path.name for path in self.path.rglob(f"{PARTIAL_PREFIX}*") if path.is_dir()]

    def our_checkpoints(self) -> list[str]:
        return [name for name in self.domain.checkpoints if is_ours(name)]

    def levels(self, job: Job) -> dict[str, str]:
        assert job.result is not None, job.error
        return {disk["target"]: disk["level"] for disk in job.result["backup"]["disks"]}

    def freezes(self) -> int:
        return self.domain.log.count("guest-fsfreeze-freeze")

    def is_as_before(self) -> bool:
        """The disks are on their own files, no overlay is left, and the guest runs."""
        return self.overlays() == [] and all(name.startswith("db1-") for name in self.sources().values()) and not self.domain.agent.frozen


def make_image(path: str, image_format: str, size: int) -> None:
    Path(path).unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", image_format, path, str(size)], check=True, capture_output=True)
    write(path, 1, 0, image_format)


def write(path: str | Path, byte: int, offset: int, image_format: str = "qcow2", length: int = 65536) -> None:
    """As a guest would, into a file that no QEMU has open."""
    command = ["qemu-io", "-f", image_format, "-c", f"write -q -P {byte} {offset} {length}", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def _nothing(_: Repository) -> None:
    """Nothing else happens in this step."""


class Steps:
    """What else happens when a job makes a step in the repository."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self._before: dict[str, Callable[[Repository], object]] = {}
        self._after: dict[str, Callable[[Repository], object]] = {}
        real = Repository.call

        def call(repository: Repository, step: str, *arguments: Any, **more: Any) -> dict[str, Any]:
            self.seen.append(step)
            self._before.get(step, _nothing)(repository)
            answer = real(repository, step, *arguments, **more)
            self._after.pop(step, _nothing)(repository)
            return answer

        patch.setattr(Repository, "call", call)

    def before(self, step: str, action: Callable[[Repository], object], *, times: int | None = 1) -> None:
        """`times` None: always."""
        left = [times]

        def act(repository: Repository) -> None:
            if left[0] is not None:
                left[0] -= 1
                if left[0] <= 0:
                    del self._before[step]
            action(repository)

        self._before[step] = act

    def after(self, step: str, action: Callable[[Repository], object]) -> None:
        self._after[step] = action

    def fail(self, step: str, error: Exception, *, times: int | None = 1) -> None:
        def raise_it(_: Repository) -> None:
            raise error

        self.before(step, raise_it, times=times)

    def die_in(self, step: str, *, after: bool = False) -> threading.Event:
        """The worker never comes back from this step. Its hand dies with it."""
        moment = threading.Event()

        def die(repository: Repository) -> None:
            repository.hand.close()
            moment.set()
            threading.Event().wait()

        (self.after if after else self.before)(step, die)
        return moment
