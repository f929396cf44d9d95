"""Where the kills are played: a repository, a copy of it in a folder or a bucket, a database, and a worker in a process of its own."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.db.engine import Database, database_now, open_engine
from service.db.tables import CopiedPoint, Job, RecoveryPoint
from service.model.copy_target import target_of
from service.model.lifecycle import FINAL_STATES
from service.records import copies, queue, repositories
from service.records.copies import CopyRegistration
from service.records.queue import NewJob
from service.repository.signing import SigningKey
from tests.databases import migrate, sqlite_url
from tests.kills import victims
from tests.kills.bucket import Bucket
from tests.scenes.host import HOST
from tests.scenes.sealed import Sealed
from tests.service_process import ServiceProcess

KIB = 1 << 10
MIN_POINTS = 5
IS_FULL = 0.4
"""How many of the points do not stand on the one before: blocks of one chain are in another one as well, and some points can go alone."""
DISK_KIB = 4096
PATIENCE_S = 90.0
WORKER_RUNS = "Stillpoint's worker runs"
QUICK = {"poll_seconds": "0.05", "lease_seconds": "20", "inventory_seconds": "60", "repository_look_seconds": "3600"}
_MIGRATING = threading.Lock()
"""Migrations of two databases in one process would mix."""


class Yard:
    """A context, in which the worker runs. One round is played at a time."""

    def __init__(self, folder: Path, dice: random.Random, bucket: Bucket | None = None) -> None:
        self.dice, self._bucket = dice, bucket
        self.state_dir, self.place, self.temporary = folder / "state", folder / "copy", folder / "temporary"
        for each in (self.state_dir, self.place, self.temporary):
            each.mkdir(parents=True)
        url = sqlite_url(self.state_dir / "stillpoint.db")
        with _MIGRATING:
            migrate(url)
        self.database = Database(open_engine(url))
        self.sealed = Sealed(folder / "repository")
        self.sealed.signing_key = SigningKey.of_service(self.state_dir)
        self.sealed.register(self.database)
        self.copy_id = self._register_copy(folder)
        self.worker = ServiceProcess(self.state_dir, libvirt_uri="test:///default", host_id=HOST, command="worker", **QUICK)
        self.worker.environment["TMPDIR"] = str(self.temporary)
        self._worker_began_at = 0
        #: What the guest saw of each point when it was sealed.
        self.seen: dict[str, str] = {}
        #: How often the folder of a socket was seen that a killed process has left.
        self.left_sockets: Counter[str] = Counter()

    def _register_copy(self, folder: Path) -> str:
        target: dict[str, Any] = {"kind": "folder", "path": str(self.place)} if self._bucket is None else self._bucket.target
        key = self._bucket.write_key(folder / "credentials") if self._bucket is not None else None
        with self.database.write() as session:
            return copies.add(session, self.sealed.id, CopyRegistration("other", target_of(target), key), database_now(session)).id

    def show_copy(self) -> None:
        """What is in the bucket now is in `place`."""
        if self._bucket is not None:
            self._bucket.show(self.place)

    def __enter__(self) -> "Yard":
        self.start_worker()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self.database.dispose()

    # --- the worker -------------------------------------------------------------------------------

    def start_worker(self) -> None:
        self.worker.kill_if_alive()
        self._worker_began_at = self.worker.log_size()
        self.worker.start()
        self.until(self._is_worker_running, "the worker runs")

    def _is_worker_running(self) -> bool:
        if self.worker.has_ended():
            raise AssertionError(f"the worker has ended:\n{self.worker.log_text(self._worker_began_at)[-2000:]}")
        return WORKER_RUNS in self.worker.log_text(self._worker_began_at)

    @property
    def worker_pid(self) -> int:
        assert self.worker.pid is not None
        return self.worker.pid

    def kill(self, victim: str) -> int:
        """How many processes were killed. A worker that was killed is dead afterwards, and so is all that it had started."""
        pid = self.worker_pid
        hands = victims.transfers(pid)
        killed = victims.kill(victim, pid)
        if victim in (victims.WORKER, victims.ALL):
            self.worker.kill_if_alive()
            self.worker.has_ended()
            self.until(lambda: not any(_is_alive(hand) for hand in hands), "the end of what the dead worker had started")
        return killed

    @staticmethod
    def until(condition: Callable[[], object], what: str, pause_s: float = 0.01) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}")
            time.sleep(pause_s)

    # --- jobs -------------------------------------------------------------------------------------

    def ask(self, kind: str, request: Mapping[str, Any], **locked: str) -> str:
        """`locked`: what the job locks beside the repository."""
        asked = {"kind": kind, **request}
        new = NewJob(kind, None, None, HOST, asked, {}, repository_id=self.sealed.id, **locked)  # type: ignore[arg-type] # names of columns
        with self.database.write() as session:
            return queue.enqueue(session, new).job_id

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            job = session.get_one(Job, job_id)
            session.expunge(job)
            return job

    def has_ended(self, job_id: str) -> bool:
        return self.job(job_id).state in FINAL_STATES

    def wait(self, job_id: str) -> Job:
        self.until(lambda: self.has_ended(job_id), f"the end of the job {job_id}", 0.02)
        return self.job(job_id)

    def wait_for_claim(self, job_id: str) -> None:
        self.until(lambda: self.job(job_id).state != "queued", f"the begin of the job {job_id}", 0.003)

    # --- points -----------------------------------------------------------------------------------

    def on_record(self) -> dict[str, RecoveryPoint]:
        with self.database.read() as session:
            rows = list(session.scalars(select(RecoveryPoint)))
            session.expunge_all()
        return {row.id: row for row in sorted(rows, key=lambda row: row.point_in_time_at)}

    def parents(self) -> dict[str, tuple[str, ...]]:
        return {point_id: tuple(row.parents or ()) for point_id, row in self.on_record().items()}

    def on_copy(self) -> dict[str, CopiedPoint]:
        with self.database.read() as session:
            rows = list(session.scalars(select(CopiedPoint)))
            session.expunge_all()
        return {row.point_id: row for row in rows}

    def fill(self) -> list[str]:
        """The ids of the points, oldest first: as many as a round needs."""
        while len(self.on_record()) < MIN_POINTS:
            self.seal()
        return list(self.on_record())

    def seal(self, *, is_full: bool | None = None) -> str:
        """The newest point, of a disk to which the guest has written something."""
        usable = self._usable()
        # The last one is the parent. Those that are gone count all the same: the times of points only grow.
        self.sealed.points.sort(key=lambda point_id: point_id in usable)
        writes = [(self.dice.randrange(1, 256), self.dice.randrange(DISK_KIB // 64) * 64 * KIB, 64 * KIB) for _ in range(12)]
        full = self.dice.random() < IS_FULL if is_full is None else is_full
        point_id = self.sealed.seal(*writes, database=self.database, is_full=full or not usable)
        self.seen[point_id] = self.sealed.manifests[point_id].disks[0].content
        return point_id

    def _usable(self) -> set[str]:
        return {point_id for point_id, row in self.on_record().items() if row.state == "sealed"}

    def folder(self, point_id: str) -> Path:
        return self.sealed.folder(point_id)

    def repository_is_imported(self) -> bool:
        with self.database.read() as session:
            return repositories.get(session, self.sealed.id).import_asked_at is None


def _is_alive(pid: int) -> bool:
    """A process that nobody has reaped yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
