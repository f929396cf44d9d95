"""Tests whether the database can be written to, by a write. A database on a full disk still answers every read."""

import threading
import time

from sqlalchemy import update

from service import log
from service.db import room
from service.db.engine import Database, database_now, is_busy
from service.db.schema import check_schema
from service.db.tables import DatabaseIdentity
from service.errors import DatabaseReplaced, DatabaseUnavailable, StillpointError

EVERY_SECONDS = 0.2
"""Seconds between two tries. Between them the last result is given again, because readiness needs no token and must cost little."""
BUSY_PATIENCE_SECONDS = 30.0
"""Seconds for which other writers may hold the lock. After that the database counts as not writable."""
_logger = log.get(__name__)


class Trial:
    """Writes one value, at most five times a second for all callers. Until the next write all callers get the last result."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._identity: str | None = None
        self._tried_at: float | None = None
        self._worked_at = time.monotonic()
        self._problem: StillpointError | None = None

    def check(self) -> None:
        """Raises DatabaseUnavailable, DatabaseReplaced, SchemaOutdated."""
        with self._lock:
            if self._tried_at is None or time.monotonic() - self._tried_at >= EVERY_SECONDS or self._is_gone():
                self._note(self._try())
                self._tried_at = time.monotonic()
            if self._problem is not None:
                # A new error each time, because an error that is raised again and again would gather tracebacks.
                raise type(self._problem)(**self._problem.facts)

    def _is_gone(self) -> bool:
        """Check the file, which costs almost nothing."""
        try:
            if self._database.file is not None:
                self._database.file.check_unchanged()
        except DatabaseReplaced:
            return True
        return False

    def _try(self) -> StillpointError | None:
        try:
            check_schema(self._database)
            self._write()
            self._find_room()
        except DatabaseUnavailable as error:
            if is_busy(error) and time.monotonic() - self._worked_at < BUSY_PATIENCE_SECONDS:
                return None
            return error
        except StillpointError as error:
            return error
        self._worked_at = time.monotonic()
        return None

    def _note(self, problem: StillpointError | None) -> None:
        if problem is not None and (self._problem is None or self._problem.code != problem.code):
            _logger.error("database_not_writable", code=problem.code, detail=problem.detail)
        elif problem is None and self._problem is not None:
            _logger.warning("database_writable_again")
        self._problem = problem

    def _write(self) -> None:
        with self._database.write() as session:
            tried = update(DatabaseIdentity).values(tried_at=database_now(session)).returning(DatabaseIdentity.id)
            identity = session.scalars(tried).first()
        if identity is None or self._identity not in (None, identity):
            self._database.refuse_writes(DatabaseReplaced(what=f"The database has the id {identity} now, and had {self._identity} before"))
        self._identity = identity

    def _find_room(self) -> None:
        file = self._database.file
        if file is None:
            return
        try:
            room.find(file.path.parent)
        except OSError as error:
            raise DatabaseUnavailable(reason=f"{file.path.parent} cannot be written to: {error.strerror or error}") from error
