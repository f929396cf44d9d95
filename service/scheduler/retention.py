"""Removes what no rule of a policy keeps: makes the jobs, in any number of processes each job once.

After a point came into a repository one process looks at the domain of the point, and at least once a day at all domains there. A look
makes one job that removes a bounded number of points, and a bounded number of jobs that merge. The next look waits for the end of these
jobs, so that no repository has a backlog of them.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime

from service import log
from service.db.engine import Database, database_now
from service.model.schedule import JUMP_BELIEVED_S, is_clock_believed
from service.records import retention_looks
from service.records.retention_looks import DueLook

LOOK_S = 60.0
"""Seconds between two questions of a process whether a repository must be looked at."""

_logger = log.get(__name__)


class RetentionLooks:
    """`wake`: called when a job was made. `stopping` ends a look after the current repository."""

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
        #: By repository: when its clock was first seen to have jumped.
        self._jump_seen: dict[str, float] = {}

    def look(self) -> int:
        """Returns how many jobs were made. Raises DatabaseUnavailable."""
        with self._database.read() as session:
            all_due = retention_looks.due(session, database_now(session))
        made = sum(len(self._look_at(each)) for each in all_due if not self._stopping.is_set())
        if made:
            self._wake()
        return made

    def _look_at(self, look: DueLook) -> list[str]:
        """The ids of the jobs that were made."""
        with self._database.read() as session:
            now = database_now(session)
            if not self._is_believed(look, now) or retention_looks.job_at_work(session, look.repository_id) is not None:
                return []
            chosen = retention_looks.plan(session, look, now)
        jobs: list[str] = []
        with self._database.write() as session:
            if not retention_looks.take_turn(session, look, now, chosen.next_at):
                return []
            if not chosen.is_empty:
                jobs = retention_looks.ask(session, look.repository_id, chosen)
        if jobs:
            merged = sum(len(point_ids) for point_ids in chosen.merges)
            _logger.info("retention_removes", repository=look.repository_id, points=len(chosen.point_ids), merged=merged, jobs=jobs)
        return jobs

    def _is_believed(self, look: DueLook, now: datetime) -> bool:
        """A minimum age that is over only by a clock which is ahead for an hour must cost nothing."""
        if is_clock_believed(look.looked_at, now, 0):
            self._jump_seen.pop(look.repository_id, None)
            return True
        if look.repository_id not in self._jump_seen:
            self._jump_seen[look.repository_id] = self._monotonic()
            last = str(look.looked_at)
            _logger.warning(
                "clock_may_have_jumped", repository=look.repository_id, looked_at=last, now=str(now), believed_in_s=JUMP_BELIEVED_S
            )
        return is_clock_believed(look.looked_at, now, self._monotonic() - self._jump_seen[look.repository_id])
