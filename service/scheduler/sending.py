"""Sends the new points of policies to the copies that their tracks name, and removes there what the rules of a copy do not keep.

Only the jobs are made here, in any number of processes each job once.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from service import log
from service.db.engine import Database, database_now
from service.errors import StillpointError
from service.records import copies, copy_sending
from service.records.copy_sending import Wish
from service.records.policy_book import PolicyReader

LOOK_S = 30.0
"""Seconds between two looks for points that a copy has not."""

REMOVALS_S = 600.0
"""Seconds between two looks for points that are to go from a copy: such a look reads all points that are there."""

_logger = log.get(__name__)


class SendingLooks:
    """`wake`: called when a job was made. `stopping` ends a look after the current job."""

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
        self._reader = PolicyReader()
        self._monotonic = monotonic
        self._stopping = stopping or threading.Event()
        self._looked_for_full: float | None = None

    def look(self) -> int:
        """Returns how many jobs were made. Raises DatabaseUnavailable."""
        with self._database.read() as session:
            policies = [entry.policy for entry in self._reader.book(session).entries.values()]
            wishes = [each for each in copy_sending.wishes(session, policies) if self._may_ask(session, each)]
            now = database_now(session)
            full = self._full(session, now)
        made = sum(self._ask(each) for each in wishes if not self._stopping.is_set())
        made += sum(self._ask_to_remove(repository_id, copy_id) for repository_id, copy_id in full if not self._stopping.is_set())
        if made:
            self._wake()
        return made

    def _full(self, session: Session, now: datetime) -> list[tuple[str, str]]:
        """The repository and the id of each copy from which something is to go."""
        if self._looked_for_full is not None and self._monotonic() - self._looked_for_full < REMOVALS_S:
            return []
        self._looked_for_full = self._monotonic()
        with_rules = copy_sending.with_rules(session)
        return [(copy.repository_id, copy.id) for copy in with_rules if copy_sending.may_remove(session, copy, now)]

    @staticmethod
    def _may_ask(session: Session, wish: Wish) -> bool:
        return copy_sending.may_ask(session, wish, database_now(session)) and bool(copy_sending.waiting(session, wish))

    def _ask(self, wish: Wish) -> bool:
        """Each in a transaction of its own: one that cannot be asked for, as its host is not known, keeps no other back."""
        try:
            with self._database.write() as session:
                job_id = copy_sending.ask(session, wish)
        except StillpointError as error:
            _logger.warning("sending_not_asked_for", copy=wish.copy_id, policy=wish.policy, code=error.code, detail=error.detail)
            return False
        if job_id is not None:
            _logger.info("sending_asked_for", copy=wish.copy_id, policy=wish.policy, job=job_id)
        return job_id is not None

    def _ask_to_remove(self, repository_id: str, copy_id: str) -> bool:
        try:
            with self._database.write() as session:
                job_id = copy_sending.ask_to_remove(session, copies.get(session, repository_id, copy_id))
        except StillpointError as error:
            _logger.warning("removal_not_asked_for", copy=copy_id, code=error.code, detail=error.detail)
            return False
        if job_id is not None:
            _logger.info("removal_asked_for", copy=copy_id, job=job_id)
        return job_id is not None
