"""Holds the freeze window of a gate open: tells the caller that the guest is frozen, and waits for the release or the deadline.

A thread of its own talks with the database, so that a database that hangs delays neither the window nor the thaw.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from service.db.engine import Database
from service.errors import DatabaseUnavailable, GateClosedEarly, GateDeadlinePassed, GateNotOpened, StillpointError
from service.freeze.window import Hold
from service.model.gate import GateState, GateTrouble
from service.records import gates

POLL_S = 0.02
"""Seconds between two looks at the gate's row and at the reasons to close early."""
LOOK_S = 1.0
"""Seconds between two questions to the agent whether the guest is still frozen, because another client may thaw the guest."""
TO_END_S = 10.0
"""Seconds that a stopping worker reserves for the thaw and the last writes. If less than 20 s remain, half of what remains."""
AFTER_DEADLINE_S = 0.05
"""Seconds. The gate waits this much longer than the watchdog, so that the watchdog fires first and the record names the deadline."""

_WORDS = {
    GateTrouble.emergency_thaw: "an emergency thaw was asked for",
    GateTrouble.guard_died: "its thaw guard died",
    GateTrouble.worker_stops: "the worker was told to stop, and could not hold the gate open until its deadline",
    GateTrouble.thawed_by_another: "another client thawed the guest",
    GateTrouble.caller_gave_up: "the caller had stopped to wait for the gate",
    GateTrouble.database_unavailable: "the database did not store the open gate in time",
}


class GateHold:
    """Holds the window open for the caller of a gate, who takes the point in time."""

    def __init__(
        self,
        database: Database,
        job_id: str,
        domain: str,
        hold_budget_ms: int,
        *,
        is_frozen: Callable[[], bool] | None = None,
        ends_at: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`is_frozen` asks the guest. None: the guest is not asked. `ends_at`: `JobRun.ends_at`."""
        self.was_released = False
        #: Why the gate was not released. `take` sets and raises this error.
        self.error: StillpointError | None = None
        self._database = database
        self._job_id = job_id
        self._domain = domain
        self._hold_budget_ms = hold_budget_ms
        self._over = threading.Event()
        self._was_opened = False
        self._caller_has_left = False
        #: Why the gate closed before its deadline. None: it did not close early.
        self._closed_by: GateTrouble | None = None
        self._is_frozen = is_frozen
        self._ends_at = ends_at
        self._database_error: str | None = None

    def take(self, hold: Hold) -> None:
        """Returns once the gate was released. Raises GateDeadlinePassed, GateClosedEarly, GateNotOpened."""
        released = threading.Event()
        for name, work in (("gate", lambda: self._converse(hold, released)), ("look", lambda: self._look_at_the_guest(hold))):
            threading.Thread(target=work, name=f"{name}-{self._job_id[:8]}", daemon=True).start()
        self._wait(hold)
        # A release that the thread reads after this comes too late.
        self.was_released = released.is_set()
        self._over.set()
        self.error = self._why_not_released()
        if self.error is not None:
            raise self.error

    def _why_not_released(self) -> StillpointError | None:
        if self.was_released:
            return None
        if self._caller_has_left:
            return GateNotOpened(domain=self._domain, **_because(GateTrouble.caller_gave_up))
        if not self._was_opened:
            unheard = _because(GateTrouble.database_unavailable, self._database_error)
            return GateNotOpened(domain=self._domain, **_because(self._closed_by) if self._closed_by is not None else unheard)
        if self._closed_by is not None:
            return GateClosedEarly(domain=self._domain, **_because(self._closed_by))
        return GateDeadlinePassed(domain=self._domain, hold_budget_ms=self._hold_budget_ms)

    def _wait(self, hold: Hold) -> None:
        """Wait until the gate closes, its deadline passes, or the worker must stop. In small steps: a stop does not wake the thread."""
        closes_at: float | None = None
        while (left := _seconds_left(hold) + AFTER_DEADLINE_S) > 0 and not self._over.wait(min(left, POLL_S)):
            if hold.cut_short.is_set():
                # The window thaws at once now, so the gate must close.
                self._close(GateTrouble.guard_died)
            now, ends_at = time.monotonic(), self._ends_at()
            if ends_at is None:
                continue
            if closes_at is None:
                closes_at = ends_at - min(TO_END_S, (ends_at - now) / 2)
            if now >= closes_at:
                self._close(GateTrouble.worker_stops)

    def _close(self, why: GateTrouble) -> None:
        if not self._over.is_set():
            self._closed_by = why
            self._over.set()

    def _look_at_the_guest(self, hold: Hold) -> None:
        """Runs in a thread of its own, so that an agent that hangs delays neither the release nor the deadline."""
        while self._is_frozen is not None and not self._over.wait(LOOK_S):
            try:
                is_frozen = self._is_frozen()
            except StillpointError:
                # The agent did not answer. The thaw reply will show whether the hold lasted.
                continue
            # After the deadline the job itself thaws the guest.
            if not is_frozen and _seconds_left(hold) > 0:
                self._close(GateTrouble.thawed_by_another)

    def _converse(self, hold: Hold, released: threading.Event) -> None:
        news = threading.Event()
        with self._database.bells.listening(self._job_id, news.set):
            while not self._over.is_set():
                news.clear()
                try:
                    if not self._was_opened:
                        self._open(hold)
                    else:
                        self._look_at_the_row(released)
                except DatabaseUnavailable as error:
                    self._database_error = error.detail
                if not self._over.is_set():
                    # Look again soon, because no bell rings here for a release in another process, and the guest is frozen.
                    news.wait(POLL_S)

    def _open(self, hold: Hold) -> None:
        with self._database.write(urgent=True) as session:
            left = timedelta(seconds=_seconds_left(hold))
            was_opened = gates.try_to_open(session, self._job_id, hold.filesystems, left)
            state = gates.state_of(session, self._job_id)
        if was_opened:
            self._was_opened = True
            self._database.bells.ring(self._job_id)
        elif state is GateState.closed:
            self._close(GateTrouble.emergency_thaw)
        else:
            self._caller_has_left = True
            self._over.set()

    def _look_at_the_row(self, released: threading.Event) -> None:
        with self._database.read() as session:
            state = gates.state_of(session, self._job_id)
        if state is GateState.releasing:
            released.set()
            self._over.set()
        elif state is GateState.closed:
            self._close(GateTrouble.emergency_thaw)


def _because(trouble: GateTrouble, words: str | None = None) -> dict[str, str]:
    """The facts of an error. `words`: what is known beyond the trouble itself."""
    return {"trouble": trouble.value, "why": words or _WORDS[trouble]}


def _seconds_left(hold: Hold) -> float:
    return (hold.deadline_ns - time.monotonic_ns()) / 1e9
