"""Looks at the repositories of this host, publishes what it saw, and does what callers asked: to check one now, to import its points.

Each look has a thread and a process of its own: a repository that hangs delays neither the worker nor another repository.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from service import log
from service.db.engine import Database, database_now
from service.db.tables import Repository
from service.errors import (
    RepositoryBad,
    RepositoryFull,
    RepositoryGone,
    RepositoryNotAnswering,
    RepositoryReadOnly,
    RepositoryTaken,
    StillpointError,
)
from service.model.repository import RepositoryState
from service.records import doubtful_points, removal, repositories
from service.records.doubtful_points import DoubtfulPoint
from service.records.repositories import Look
from service.repository.catalog import CataloguedPoint, catalog_of
from service.repository.store import Repository as InRepository
from service.repository.store import RepositoryLook
from service.worker import repository_import
from service.worker.repository_import import ImportResult

LOOK_SILENCE_S = 20.0
"""Seconds without a sign from the storage until a look says that it does not answer."""
STOP_S = 2.0
"""Seconds that a stop waits for the looks that are under way. After that they are left behind with their processes."""

STATES: dict[type[StillpointError], RepositoryState] = {
    RepositoryFull: RepositoryState.full,
    RepositoryReadOnly: RepositoryState.read_only,
    RepositoryNotAnswering: RepositoryState.not_answering,
    RepositoryGone: RepositoryState.gone,
    RepositoryBad: RepositoryState.bad,
    RepositoryTaken: RepositoryState.bad,
}
"""What an error says of the repository. Any other error says nothing of it: its state is then unknown."""

WRITABLE = frozenset({RepositoryState.ready, RepositoryState.full})
"""States of a repository in which something can be removed."""
READABLE = frozenset({RepositoryState.full, RepositoryState.read_only})
"""States of a repository that cannot be written. Its points can be read."""
POINTS_AT_ONCE = 100
"""Points that one transaction of an import puts on record, so that it does not keep others from writing."""

Work = Callable[[Session, datetime], object]

_logger = log.get(__name__)


class Stopped(Exception):
    """The worker stops, or has lost its host: what is under way is left."""


@dataclass(frozen=True)
class _Task:
    """One repository as it stood in its row when its turn came."""

    id: str
    path: str
    reserve_bytes: int
    #: It was never seen, so its folder may have to be made.
    is_new: bool
    check_asked_at: datetime | None
    import_asked_at: datetime | None


class RepositoryWatch:
    """`look_at_due` is called again and again, and returns at once. `is_mine`: whether this worker still has the host. Otherwise nothing
    is written."""

    def __init__(
        self,
        database: Database,
        host_id: str,
        stopping: threading.Event,
        *,
        every_s: float,
        silence_s: float = LOOK_SILENCE_S,
        open_repository: Callable[..., InRepository] = InRepository,
        is_mine: Callable[[Session], bool] = lambda _: True,
    ) -> None:
        self._database = database
        self._host_id = host_id
        self._stopping = stopping
        self._every_s = every_s
        self._silence_s = silence_s
        self._open_repository = open_repository
        self._is_mine = is_mine
        self._lock = threading.Lock()
        #: By the id of the repository: the thread that looks at it now, and when the last look began (monotonic).
        self._threads: dict[str, threading.Thread] = {}
        self._looked_at: dict[str, float] = {}

    def look_at_due(self) -> None:
        """Begin a look at every repository that is due and that no thread looks at now."""
        with self._database.read() as session:
            tasks = [_task(row) for row in repositories.of_host(session, self._host_id)]
        for task in tasks:
            if self._is_due(task):
                self._begin(task)

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """After `stopping` was set: wait for the looks that are under way. False: some did not end."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _is_due(self, task: _Task) -> bool:
        with self._lock:
            thread, last = self._threads.get(task.id), self._looked_at.get(task.id)
        if thread is not None and thread.is_alive():
            return False
        is_asked = task.check_asked_at is not None or task.import_asked_at is not None
        return is_asked or last is None or time.monotonic() - last >= self._every_s

    def _begin(self, task: _Task) -> None:
        thread = threading.Thread(target=self._in_thread, args=(task,), name=f"repository-{task.id[:8]}", daemon=True)
        with self._lock:
            self._threads[task.id], self._looked_at[task.id] = thread, time.monotonic()
        thread.start()

    # --- in the thread of one repository ----------------------------------------------------------

    def _in_thread(self, task: _Task) -> None:
        try:
            self._do(task)
        except Stopped:
            pass
        except StillpointError as error:
            # The database is away, or the repository was taken off the list meanwhile. The next look comes.
            _logger.warning("repository_not_published", repository=task.id, code=error.code, detail=error.detail)
        except Exception:
            # The edge of the thread.
            _logger.exception("repository_look_failed", repository=task.id)

    def _do(self, task: _Task) -> None:
        with self._open(task.path, None if task.is_new else task.id) as repository:
            look = self._look(repository, task)
            # The folder decides the id at the first look.
            known_as = repository.id or task.id
            self._write(lambda session, now: repositories.note_look(session, known_as, look, now, asked_at=task.check_asked_at))
            self._look_for_doubtful(repository, known_as, look)
            if task.import_asked_at is not None:
                result = self._import(repository, known_as, look)
                self._write(
                    lambda session, now: repositories.note_import(
                        session, known_as, result.as_document(), now, asked_at=task.import_asked_at
                    )
                )

    def _open(self, path: str, repository_id: str | None) -> InRepository:
        # Without a key: a look and an import read no disk.
        return self._open_repository(path, repository_id, silence_s=self._silence_s, safe_point=self._safe_point)

    def _look(self, repository: InRepository, task: _Task) -> Look:
        try:
            if task.is_new:
                self._look_first(repository, task)
            return _seen(task, repository.look())
        except StillpointError as error:
            return Look(STATES.get(type(error), RepositoryState.unknown), error)

    def _look_first(self, repository: InRepository, task: _Task) -> None:
        """Only here a folder is made a repository: an empty folder is later a share that is not mounted."""
        try:
            there = repository.look().id
        except (RepositoryGone, RepositoryBad):
            # Refuses a folder that has another content.
            repository.id = task.id
            repository.create()
        else:
            self._write(lambda session, _now: repositories.adopt(session, task.id, there))
            repository.id = there

    def _look_for_doubtful(self, repository: InRepository, known_as: str, look: Look) -> None:
        """Points that were being published when the repository went away. What is there comes on the list."""
        with self._database.read() as session:
            doubtful = doubtful_points.of_repository(session, known_as)
        if not doubtful or look.state not in WRITABLE:
            return
        try:
            for point in doubtful:
                repository.drop_partial(point.partial)
        except StillpointError as error:
            _logger.warning("doubtful_points_not_settled", repository=known_as, code=error.code, detail=error.detail)
            return
        result = self._import(repository, known_as, look)
        if result.error is not None:
            return
        for point in doubtful:
            self._write(_settling(point, is_sealed=point.point_id in result.present))

    def _import(self, repository: InRepository, known_as: str, look: Look) -> ImportResult:
        result = ImportResult()
        if look.error is not None and look.state not in READABLE:
            result.error = look.error
            return result
        with self._database.read() as session:
            result.begun = removal.EventPosition.now(session)
        try:
            stored = repository_import.listed_twice(repository)
        except StillpointError as error:
            result.error = error
            return result
        catalog = catalog_of(stored)
        for begin in range(0, len(catalog.points), POINTS_AT_ONCE):
            self._write(_recording(known_as, catalog.points[begin : begin + POINTS_AT_ONCE], result))
        self._write(lambda session, now: repository_import.judge_signatures(session, known_as, catalog.points, now))
        self._write(lambda session, now: repository_import.refuse(session, known_as, catalog.unusable, result, now))
        self._write(lambda session, now: repository_import.note_missing(session, known_as, result, now))
        return result

    def _safe_point(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    def _write(self, work: Work) -> None:
        with self._database.write() as session:
            if not self._is_mine(session):
                raise Stopped
            work(session, database_now(session))


def _task(row: Repository) -> _Task:
    return _Task(
        id=row.id,
        path=row.path,
        reserve_bytes=row.reserve_bytes,
        is_new=row.format_version is None,
        check_asked_at=row.check_asked_at,
        import_asked_at=row.import_asked_at,
    )


def _recording(repository_id: str, stored: Sequence[CataloguedPoint], result: ImportResult) -> Work:
    return lambda session, now: repository_import.put_on_record(session, repository_id, stored, result, now)


def _settling(point: DoubtfulPoint, *, is_sealed: bool) -> Work:
    return lambda session, _now: doubtful_points.settle(session, point, is_sealed=is_sealed)


def _seen(task: _Task, seen: RepositoryLook) -> Look:
    error = seen.why_not
    if error is None and seen.free_bytes <= task.reserve_bytes:
        error = RepositoryFull(path=task.path, free_bytes=seen.free_bytes, needed_bytes=task.reserve_bytes)
    state = STATES.get(type(error), RepositoryState.unknown) if error is not None else RepositoryState.ready
    return Look(state, error, seen.free_bytes, seen.total_bytes, seen.version)
