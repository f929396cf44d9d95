"""The freeze window: freeze, point in time, thaw. Nothing else happens in here.

No database, no logging, no retry library, no callback: everything that the window needs is made before it, and everything that it
recorded is interpreted after it. The order of calls is F§6.1, the instants are F§6.2.
"""

import math
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.errors import AgentBusy, AgentCommandBlocked, AgentCommandFailed, AgentLost, AgentNotAnswering, DomainGone, StillpointError
from service.model.window import (
    FreezeOutcome,
    FreezeReply,
    GuardReport,
    ThawOutcome,
    ThawReply,
    WindowRecord,
    classify_freeze_error,
    classify_thaw_count,
    classify_thaw_error,
)

THAW_TIMEOUT_MS = 60_000
"""Milliseconds for one thaw. A reply may be slow (hooks, VSS), and a thaw that is given up early loses the evidence in its reply."""
THAW_PATIENCE_S = 600.0
"""Seconds that an unanswered thaw is repeated. Then the job ends with guest_still_frozen, and the guard continues."""
LOST_AGENT_PATIENCE_S = 10.0
"""Seconds that a thaw is repeated if libvirt does not send it. Then a person must restart the agent. Guard and recovery continue."""
LOCK_WAIT_MS = 30_000
"""Milliseconds that libvirt waits for an agent command of another client (VIR_JOB_WAIT_TIME, F§4.1) before it sends ours."""
NS_PER_MS = 1_000_000
THAW_PAUSE_S = 0.05
"""Seconds before an unanswered thaw is repeated. The pause doubles with each try."""
THAW_PAUSE_MAX_S = 0.5
"""Seconds at which that pause stops to grow."""


class FreezableGuest(Protocol):
    def freeze(self, mountpoints: Sequence[str] | None, timeout_ms: int) -> int: ...

    def thaw(self, timeout_ms: int) -> int: ...

    def is_frozen(self) -> bool: ...

    def is_shut_off(self) -> bool: ...


class WindowGuard(Protocol):
    """A process that thaws if the worker cannot. Only `dismiss` waits. Instants are of time.monotonic_ns."""

    def fileno(self) -> int | None:
        """Readable if the guard has sent a message or died. None: there is no guard."""
        ...

    def is_gone(self) -> bool: ...

    def freezing(self, over_by_ns: int, hold_ns: int) -> None:
        """Freeze is sent now. The freeze call ends at `over_by_ns` at the latest, and the guest may then be held for `hold_ns`."""
        ...

    def frozen(self, count: int, thaw_by_ns: int) -> None: ...

    def dismiss(self) -> GuardReport | None:
        """Call this after an answered thaw. The guard ends. Returns the report of a guard that thawed."""
        ...


@dataclass(frozen=True)
class Hold:
    """For the code that takes the point: writes are held until `deadline_ns` (of time.monotonic_ns), or until `cut_short` is set."""

    filesystems: int
    deadline_ns: int
    #: The thaw guard died: the guest is thawed before the deadline.
    cut_short: threading.Event


Take = Callable[[Hold], None]


@dataclass(frozen=True)
class WindowPlan:
    """The decisions that are made before the window. `mountpoints` None: every filesystem."""

    mountpoints: Sequence[str] | None
    freeze_timeout_ms: int
    hold_limit_ms: int
    #: Do not begin the point in time later than this after the freeze reply. Thaw without a point instead.
    hold_soft_ms: int | None = None
    #: A higher count of frozen filesystems cannot be true (F§1.1). None: any count may be true.
    max_filesystems: int | None = None
    #: Ask the agent once more before the thaw, because the error of a hook that fails on thaw replaces the count.
    confirm_before_thaw: bool = False
    #: The guest is a Linux without a hook. If its agent answered that it froze nothing, no thaw is needed.
    spares_foreign_freeze: bool = False
    thaw_patience_s: float = THAW_PATIENCE_S

    @property
    def latest_ms(self) -> int:
        """After the freeze reply: a point in time that begins later could not end inside the hold."""
        return self.hold_limit_ms if self.hold_soft_ms is None else min(self.hold_soft_ms, self.hold_limit_ms)


def run(guest: FreezableGuest, take: Take, plan: WindowPlan, guard: WindowGuard) -> WindowRecord:
    """Freeze, take the point in time, thaw. Returns only after a thaw was answered, or was tried for `thaw_patience_s`.

    The point is taken only inside a freeze that was answered. Thaw is sent in nearly every case, because a freeze that failed or timed out
    may have frozen the guest nevertheless (F§4.1). Thaw is not sent if the agent did not accept the freeze, or if the freeze froze
    nothing: then another client may hold the guest, and our thaw would end that hold.
    """
    record = WindowRecord()
    at = record.instants
    watchdog = _Watchdog(guest, plan, guard)
    try:
        at.freeze_sent = time.monotonic_ns()
        guard.freezing(at.freeze_sent + (plan.freeze_timeout_ms + LOCK_WAIT_MS) * NS_PER_MS, plan.hold_limit_ms * NS_PER_MS)
        record.freeze = _freeze(guest, plan)
        at.freeze_reply = time.monotonic_ns()
        if record.freeze.outcome is FreezeOutcome.frozen:
            deadline = at.freeze_reply + plan.hold_limit_ms * NS_PER_MS
            guard.frozen(record.freeze.count or 0, deadline)
            hold = Hold(record.freeze.count or 0, deadline, watchdog.guard_is_gone)
            watchdog.arm(deadline, record.freeze.count)
            at.point_sent = time.monotonic_ns()
            record.was_too_late = at.point_sent > at.freeze_reply + plan.latest_ms * NS_PER_MS or watchdog.fired or watchdog.guard_died
            if not record.was_too_late:
                record.point_was_requested = True
                record.point_error = _error_of(take, hold)
                at.point_done = time.monotonic_ns()
            if plan.confirm_before_thaw:
                record.frozen_before_thaw = _status(guest)
    finally:
        if not _is_somebody_elses(guest, plan, record.freeze):
            record.watchdog_fired = watchdog.stop()
            at.thaw_sent = watchdog.thaw_sent or time.monotonic_ns()
            record.thaw = watchdog.reply or thaw_until_answered(guest, record.freeze.count, plan.thaw_patience_s)
            at.thaw_reply = watchdog.thaw_reply or time.monotonic_ns()
        else:
            watchdog.stop()
        record.guard_died = watchdog.guard_died
    _adopt_guard_thaw(guard, record)
    record.frozen_afterwards = _status(guest)
    return record


def _is_somebody_elses(guest: FreezableGuest, plan: WindowPlan, freeze: FreezeReply) -> bool:
    """Whether a freeze in the guest is not ours. A thaw of the agent ends every freeze, also a freeze from inside the guest."""
    if freeze.outcome is FreezeOutcome.blocked:
        return True
    return plan.spares_foreign_freeze and freeze.outcome is FreezeOutcome.empty and freeze.count == 0 and _status(guest) is False


def _adopt_guard_thaw(guard: WindowGuard, record: WindowRecord) -> None:
    """If the guard thawed before the worker, its reply shows whether the hold lasted. The worker's own reply finds nothing left to thaw."""
    if record.thaw.outcome is ThawOutcome.unanswered:
        # The guard must continue to thaw, so it is not dismissed.
        return
    report = record.guard = guard.dismiss()
    instants = record.instants
    if report is not None and report.thaw_sent_ns and instants.thaw_sent and report.thaw_sent_ns < instants.thaw_sent:
        record.thaw = report.reply
        instants.thaw_sent, instants.thaw_reply = report.thaw_sent_ns, report.thaw_reply_ns


def thaw_until_answered(guest: FreezableGuest, frozen: int | None, patience_s: float) -> ThawReply:
    """Repeat the thaw until the agent answers. An error that comes from the *agent* is an answer, too (F§0.2)."""
    deadline = time.monotonic() + patience_s
    attempts, pause = 0, THAW_PAUSE_S
    lost_since = math.inf
    while True:
        attempts += 1
        try:
            count = guest.thaw(THAW_TIMEOUT_MS)
            return ThawReply(classify_thaw_count(frozen, count), count=count, attempts=attempts)
        except AgentCommandFailed as error:
            text = str(error.facts["message"])
            return ThawReply(classify_thaw_error(text), message=text, attempts=attempts)
        except StillpointError as error:
            if _is_shut_off(guest):
                return ThawReply(ThawOutcome.lost, message="the domain was shut off or left this host meanwhile", attempts=attempts)
            lost_since = _lost_since(lost_since, error)
            if time.monotonic() > min(deadline, lost_since + LOST_AGENT_PATIENCE_S):
                is_lost = lost_since < math.inf
                return ThawReply(ThawOutcome.unanswered, message=error.detail, attempts=attempts, agent_is_lost=is_lost)
        time.sleep(pause)
        pause = min(pause * 2, THAW_PAUSE_MAX_S)


def _lost_since(since: float, error: StillpointError) -> float:
    """Since when libvirt has lost the agent (time.monotonic). Infinity: libvirt has the agent.

    On a busy host a refusal may come so late that it looks like silence.
    """
    if isinstance(error, AgentLost):
        return min(since, time.monotonic())
    return since if isinstance(error, AgentNotAnswering) else math.inf


class _Watchdog:
    """Thaws from a thread of its own if the hold limit passes before the point is taken, and if the guard dies.

    This works during a snapshot, because libvirt has different locks for the agent and for the snapshot (F§4.1). The thread runs before
    the freeze is sent.
    """

    def __init__(self, guest: FreezableGuest, plan: WindowPlan, guard: WindowGuard) -> None:
        self.reply: ThawReply | None = None
        self.thaw_sent: int | None = None
        self.thaw_reply: int | None = None
        self.guard_is_gone = threading.Event()
        self.fired = False
        self._guest = guest
        self._plan = plan
        self._guard = guard
        self._frozen: int | None = None
        self._deadline: int | None = None
        self._lock = threading.Lock()
        self._settled = False
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def arm(self, deadline: int, frozen: int | None) -> None:
        """The guest is frozen. `deadline`: of time.monotonic_ns."""
        self._deadline, self._frozen = deadline, frozen
        os.eventfd_write(self._woken, 1)

    @property
    def guard_died(self) -> bool:
        return self.guard_is_gone.is_set()

    def stop(self) -> bool:
        """Stop the watchdog. True: it has fired, its thaw has ended, and `reply` is set."""
        with self._lock:
            self._settled = True
        os.eventfd_write(self._woken, 1)
        self._thread.join()
        os.close(self._woken)
        return self.fired

    def _watch(self) -> None:
        events = select.poll()
        events.register(self._woken, select.POLLIN)
        guard = self._guard.fileno()
        if guard is not None:
            events.register(guard, select.POLLIN)
        while not self._settled:
            ready = [descriptor for descriptor, _ in events.poll(self._milliseconds_left())]
            if self._woken in ready:
                os.eventfd_read(self._woken)
            if guard in ready and self._guard.is_gone():
                self.guard_is_gone.set()
                events.unregister(guard)
            # Before the freeze is answered, a thaw would only wait behind the freeze, or come before it.
            if self._deadline is not None and (self.guard_died or self._milliseconds_left() == 0):
                self._fire()
                return

    def _milliseconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, (self._deadline - time.monotonic_ns()) / 1e6)

    def _fire(self) -> None:
        with self._lock:
            if self._settled:
                return
            self._settled = self.fired = True
        self.thaw_sent = time.monotonic_ns()
        self.reply = thaw_until_answered(self._guest, self._frozen, self._plan.thaw_patience_s)
        self.thaw_reply = time.monotonic_ns()


def _freeze(guest: FreezableGuest, plan: WindowPlan) -> FreezeReply:
    try:
        count = guest.freeze(plan.mountpoints, plan.freeze_timeout_ms)
    except AgentCommandFailed as error:
        text = str(error.facts["message"])
        return FreezeReply(classify_freeze_error(text), message=text)
    except (AgentCommandBlocked, AgentBusy) as error:
        return FreezeReply(FreezeOutcome.blocked, message=error.detail)
    except StillpointError as error:
        return FreezeReply(FreezeOutcome.unanswered, message=error.detail)
    if plan.max_filesystems is not None and count > plan.max_filesystems:
        return FreezeReply(FreezeOutcome.absurd, count=count)
    return FreezeReply(FreezeOutcome.frozen if count > 0 else FreezeOutcome.empty, count=count)


def _error_of(take: Take, hold: Hold) -> str | None:
    try:
        take(hold)
    except StillpointError as error:
        return error.detail
    return None


def _status(guest: FreezableGuest) -> bool | None:
    try:
        return guest.is_frozen()
    except StillpointError:
        return None


def _is_shut_off(guest: FreezableGuest) -> bool:
    try:
        return guest.is_shut_off()
    except DomainGone:
        return True
    except StillpointError:
        return False
