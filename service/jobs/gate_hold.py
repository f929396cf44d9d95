"""What stands in the freeze window of a gate in the place of the snapshot: open, and wait for the release or the deadline.

All talk with the database is in a thread of its own: one that hangs keeps neither the window nor the guest.
"""

import threading
import time
from datetime import timedelta

from service.db.engine import Database
from service.errors import DatabaseUnavailable, GateClosedEarly, GateDeadlinePassed, GateNotOpened, StillpointError
from service.jobs import gates
from service.jobs.freeze_window import WindowGuard
from service.model.window import GuardDeed

POLL_S = 0.02
AFTER_DEADLINE_S = 0.05
"""So much later than the watchdog, whose deadline it is: whoever reads the record sees it thaw for that reason."""


class GateHold:
    """Stands between the window and its thaw guard: that is how it learns what was frozen, and until when."""

    def __init__(self, database: Database, job_id: str, domain: str, guard: WindowGuard) -> None:
        self.was_released = False
        #: Why it was not released; of `hold`.
        self.error: StillpointError | None = None
        self._database = database
        self._job_id = job_id
        self._domain = domain
        self._guard = guard
        self._filesystems = 0
        self._hold_budget_ms = 0
        self._thaw_by = 0
        self._over = threading.Event()
        self._was_opened = False
        self._was_given_up = False
        self._guard_died = False
        self._trouble = "the database did not take it in time"

    def hold(self) -> None:
        """Returns once the gate was released. Raises GateDeadlinePassed, GateClosedEarly, GateNotOpened."""
        released = threading.Event()
        threading.Thread(target=self._converse, args=(released,), name=f"gate-{self._job_id[:8]}", daemon=True).start()
        self._over.wait(max(0.0, self._seconds_left()) + AFTER_DEADLINE_S)
        # What the thread finds from here on comes too late.
        self.was_released = released.is_set()
        self._over.set()
        self.error = self._why_not_released()
        if self.error is not None:
            raise self.error

    def _why_not_released(self) -> StillpointError | None:
        if self.was_released:
            return None
        if self._was_given_up:
            return GateNotOpened(domain=self._domain, why="the caller had given up")
        if not self._was_opened:
            return GateNotOpened(domain=self._domain, why=self._trouble)
        if self._guard_died:
            return GateClosedEarly(domain=self._domain, why="its thaw guard died")
        return GateDeadlinePassed(domain=self._domain, hold_budget_ms=self._hold_budget_ms)

    def _converse(self, released: threading.Event) -> None:
        while not self._over.is_set():
            try:
                if not self._was_opened:
                    self._open()
                elif self._is_release_requested():
                    released.set()
                    self._over.set()
            except DatabaseUnavailable as error:
                self._trouble = error.detail
            self._over.wait(POLL_S)

    def _open(self) -> None:
        with self._database.write() as session:
            left = timedelta(seconds=self._seconds_left())
            was_opened = gates.try_to_open(session, self._job_id, self._filesystems, left)
        if was_opened:
            self._was_opened = True
        else:
            self._was_given_up = True
            self._over.set()

    def _is_release_requested(self) -> bool:
        with self._database.read() as session:
            return gates.is_release_requested(session, self._job_id)

    def _seconds_left(self) -> float:
        return (self._thaw_by - time.monotonic_ns()) / 1e9

    # --- as the guard of the window -----------------------------------------------------------------

    def fileno(self) -> int | None:
        return self._guard.fileno()

    def is_gone(self) -> bool:
        is_gone = self._guard.is_gone()
        if is_gone:
            # The window thaws at once now, so there is nothing to wait for.
            self._guard_died = True
            self._over.set()
        return is_gone

    def freezing(self, over_by_ns: int, hold_ns: int) -> None:
        self._hold_budget_ms = hold_ns // 1_000_000
        self._guard.freezing(over_by_ns, hold_ns)

    def frozen(self, count: int, thaw_by_ns: int) -> None:
        self._filesystems, self._thaw_by = count, thaw_by_ns
        self._guard.frozen(count, thaw_by_ns)

    def dismiss(self) -> GuardDeed | None:
        return self._guard.dismiss()
