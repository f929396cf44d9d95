"""The freeze window: freeze, point in time, thaw. Nothing else happens in here.

No database, no logging, no retry library, no callback: whatever the window needs is made before it, and
whatever it saw is interpreted after it. The order of calls is F§6.1, the instants are F§6.2.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.errors import AgentBusy, AgentCommandBlocked, AgentCommandFailed, DomainGone, StillpointError
from service.model.window import (
    FreezeOutcome,
    FreezeReply,
    ThawOutcome,
    ThawReply,
    WindowRecord,
    classify_freeze_error,
    classify_thaw_count,
    classify_thaw_error,
)

THAW_TIMEOUT_MS = 60_000
"""A thaw reply may take its time (hooks, VSS); giving up early would lose the evidence in it."""
THAW_PATIENCE_S = 600.0
"""How long an unanswered thaw is repeated."""
THAW_PAUSE_S = 0.05
THAW_PAUSE_MAX_S = 5.0


class FreezableGuest(Protocol):
    def freeze(self, mountpoints: Sequence[str] | None, timeout_ms: int) -> int: ...

    def thaw(self, timeout_ms: int) -> int: ...

    def is_frozen(self) -> bool: ...

    def is_shut_off(self) -> bool: ...


@dataclass(frozen=True)
class WindowPlan:
    """Decided before the window. `mountpoints` None: every filesystem."""

    mountpoints: Sequence[str] | None
    freeze_timeout_ms: int
    hold_limit_ms: int
    #: Do not begin the point in time later than this after the freeze reply: late is worse than never.
    hold_soft_ms: int | None = None
    #: A count above this is noise and no count (F§1.1); None: any number may be true.
    most_filesystems: int | None = None
    #: Ask the agent once more before the thaw: where a hook may fail on thaw, its error would eat the count.
    confirm_before_thaw: bool = False
    thaw_patience_s: float = THAW_PATIENCE_S


def run(guest: FreezableGuest, take_snapshot: Callable[[], None], plan: WindowPlan) -> WindowRecord:
    """Freeze, take the point in time, thaw. Returns only after a thaw was answered, or was tried for `thaw_patience_s`.

    The snapshot is taken only inside a freeze that was answered. Thaw is sent whatever else happened: a freeze
    that failed or timed out may have frozen the guest all the same (F§4.1). Only a freeze that the agent did not take
    is not ours to end: then somebody else holds the guest, and our thaw would break their window.
    """
    record = WindowRecord()
    at = record.instants
    watchdog = _Watchdog(guest, plan)
    try:
        at.freeze_sent = time.monotonic_ns()
        record.freeze = _freeze(guest, plan)
        at.freeze_reply = time.monotonic_ns()
        if record.freeze.outcome is FreezeOutcome.frozen:
            watchdog.start(record.freeze.count)
            at.snapshot_sent = time.monotonic_ns()
            record.was_too_late = plan.hold_soft_ms is not None and at.snapshot_sent - at.freeze_reply > plan.hold_soft_ms * 1_000_000
            if not record.was_too_late:
                record.snapshot_was_called = True
                record.snapshot_error = _take(take_snapshot)
                at.snapshot_done = time.monotonic_ns()
            if plan.confirm_before_thaw:
                record.frozen_before_thaw = _status(guest)
    finally:
        if record.freeze.outcome is not FreezeOutcome.blocked:
            record.watchdog_fired = watchdog.stop()
            at.thaw_sent = watchdog.thaw_sent or time.monotonic_ns()
            record.thaw = watchdog.reply or thaw_until_answered(guest, record.freeze.count, plan.thaw_patience_s)
            at.thaw_reply = watchdog.thaw_reply or time.monotonic_ns()
    record.frozen_afterwards = _status(guest)
    return record


def thaw_until_answered(guest: FreezableGuest, frozen: int | None, patience_s: float) -> ThawReply:
    """Repeat the thaw until the agent answers it; an error that the *agent* answers is an answer (F§0.2)."""
    deadline = time.monotonic() + patience_s
    attempts, pause = 0, THAW_PAUSE_S
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
            if time.monotonic() > deadline:
                return ThawReply(ThawOutcome.unanswered, message=error.detail, attempts=attempts)
        time.sleep(pause)
        pause = min(pause * 2, THAW_PAUSE_MAX_S)


class _Watchdog:
    """Thaws from a thread of its own when the hold limit passes while the snapshot call is still out.

    It can: libvirt's agent lock is another one than the snapshot's (F§4.1).
    """

    def __init__(self, guest: FreezableGuest, plan: WindowPlan) -> None:
        self.reply: ThawReply | None = None
        self.thaw_sent: int | None = None
        self.thaw_reply: int | None = None
        self._guest = guest
        self._plan = plan
        self._frozen: int | None = None
        self._lock = threading.Lock()
        self._settled = False
        self._timer = threading.Timer(plan.hold_limit_ms / 1000, self._fire)
        self._timer.daemon = True

    def start(self, frozen: int | None) -> None:
        self._frozen = frozen
        self._timer.start()

    def stop(self) -> bool:
        """True when it fired; then its thaw has ended and `reply` is set."""
        with self._lock:
            fired, self._settled = self._settled, True
        self._timer.cancel()
        if fired:
            self._timer.join()
        return fired

    def _fire(self) -> None:
        with self._lock:
            if self._settled:
                return
            self._settled = True
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
    if plan.most_filesystems is not None and count > plan.most_filesystems:
        return FreezeReply(FreezeOutcome.absurd, count=count)
    return FreezeReply(FreezeOutcome.frozen if count > 0 else FreezeOutcome.empty, count=count)


def _take(take_snapshot: Callable[[], None]) -> str | None:
    try:
        take_snapshot()
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
