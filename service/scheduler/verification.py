"""Makes the verifies by plan: of each repository with a budget one read at a time, in any number of processes each read once."""

import threading
import time
from collections.abc import Callable

from service import log
from service.db.engine import Database, database_now
from service.records import verification
from service.records.verification_next import allowance_of, reads_of

LOOK_S = 15.0
"""Seconds between two looks at the budgets."""
IDLE_S = 600.0
"""Seconds after which a repository in which there was nothing to read is planned again: a plan reads all of its points on record."""

_logger = log.get(__name__)


class VerificationLooks:
    """Which budget has something to read. `wake`: called when a job was made. `stopping` ends a look after the current repository."""

    def __init__(
        self,
        database: Database,
        wake: Callable[[], object],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        stopping: threading.Event | None = None,
    ) -> None:
        self._database = database
        self._wake = wake
        self._monotonic = monotonic
        self._stopping = stopping or threading.Event()
        #: By repository: until when nothing is planned there.
        self._idle_until: dict[str, float] = {}

    def look(self) -> int:
        """Returns how many jobs were made. Raises DatabaseUnavailable."""
        with self._database.read() as session:
            ids = verification.with_budget(session)
        made = sum(self._look_at(repository_id) for repository_id in ids if not self._stopping.is_set())
        if made:
            self._wake()
        return made

    def _look_at(self, repository_id: str) -> bool:
        """Whether a read was begun."""
        if not self._settled(repository_id) or self._monotonic() < self._idle_until.get(repository_id, 0.0):
            return False
        with self._database.read() as session:
            last, now = verification.last_run(session, repository_id), database_now(session)
            allowance = allowance_of(session, repository_id, now)
            if allowance is None:
                return False
            planned = next((each for each in reads_of(session, repository_id, now) if allowance.allows(each.cost_bytes)), None)
        if planned is None:
            self._idle_until[repository_id] = self._monotonic() + IDLE_S
            return False
        with self._database.write() as session:
            if not verification.turn_of(session, repository_id, last):
                return False
            run = verification.begin(session, repository_id, planned, allowance.budget, last)
            job_id, why = run.job_id, run.why
        _logger.info("verification_begun", repository=repository_id, point=planned.point_id, why=why, job=job_id)
        return job_id is not None

    def _settled(self, repository_id: str) -> bool:
        """Put on record what came of the last read. False: it has not ended."""
        with self._database.read() as session:
            last = verification.last_run(session, repository_id)
            if last is None or last.outcome is not None:
                return True
            if not verification.has_ended(session, last):
                return False
        with self._database.write() as session:
            verification.settle(session, last)
        # What it found may have changed what there is to read.
        self._idle_until.pop(repository_id, None)
        return True
