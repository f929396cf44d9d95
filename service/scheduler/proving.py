"""Asks for the monthly attack on the sentinel of each copy with locks, in any number of processes each once."""

import threading
from collections.abc import Callable

from service import log
from service.db.engine import Database, database_now
from service.errors import StillpointError
from service.records import copies, copy_orders

LOOK_S = 300.0
"""Seconds between two looks."""

_logger = log.get(__name__)


class ProvingLooks:
    """Which proofs are due. `wake`: called when a job was made. `stopping` ends a look after the current job."""

    def __init__(self, database: Database, wake: Callable[[], object], *, stopping: threading.Event | None = None) -> None:
        self._database = database
        self._wake = wake
        self._stopping = stopping or threading.Event()

    def look(self) -> int:
        """Returns how many jobs were made. Raises DatabaseUnavailable."""
        with self._database.read() as session:
            due = [(copy.repository_id, copy.id) for copy in copies.due(session, database_now(session))]
        made = sum(self._ask(repository_id, copy_id) for repository_id, copy_id in due if not self._stopping.is_set())
        if made:
            self._wake()
        return made

    def _ask(self, repository_id: str, copy_id: str) -> bool:
        """Each in a transaction of its own: one that cannot be asked for, as its host is not known, keeps no other back."""
        try:
            with self._database.write() as session:
                job_id = copy_orders.ask_for_due_proof(session, copies.get(session, repository_id, copy_id))
        except StillpointError as error:
            _logger.warning("proof_not_asked_for", copy=copy_id, code=error.code, detail=error.detail)
            return False
        if job_id is not None:
            _logger.info("proof_asked_for", copy=copy_id, job=job_id)
        return job_id is not None
