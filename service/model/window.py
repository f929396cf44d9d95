"""What happened in one freeze window, as recorded facts; and what a thaw reply means (F§6.4)."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from service.model.timing import WindowInstants

HOOK_FAILURE_TEXTS = (
    "fsfreeze hook has failed",
    "fsfreeze hook has terminated abnormally",
    "can't access fsfreeze hook",
    # QEMU 9.1 and later. To a freeze or a thaw the agent starts no other process than the hook.
    "failed to execute fsfreeze hook",
    "child process has terminated abnormally",
)
"""F§2: the agent's texts for a hook; matched as substrings, because a path, a status or the output of the hook follows."""


class FreezeOutcome(StrEnum):
    frozen = "frozen"
    empty = "empty"
    """The agent answered that it froze nothing."""
    absurd = "absurd"
    """The agent answered an impossible count: whether anything is frozen is not known."""
    refused = "refused"
    """The agent answered with an error: nothing is frozen."""
    blocked = "blocked"
    """The agent refuses the command now, and accepted commands before: another client froze the guest, or blocked the command."""
    hook_failed = "hook_failed"
    """The guest's own hook refused: nothing is frozen (F§2)."""
    unanswered = "unanswered"
    """No answer in time. The guest may freeze later, so a thaw must be answered."""
    not_possible = "not_possible"
    """The survey shows why: no channel, no agent, blocked, or frozen by another client. Nothing was sent."""
    not_requested = "not_requested"
    not_needed = "not_needed"
    """The domain is shut off."""


class ThawOutcome(StrEnum):
    completed = "completed"
    count_differs = "count_differs"
    """Thawed, but the count differs from the count of the freeze: another client thawed or froze some filesystems."""
    lost = "lost"
    """The agent had nothing to thaw: another client thawed before, or the agent restarted."""
    hook_failed = "hook_failed"
    """The filesystems are thawed; the guest's own hook failed afterwards."""
    refused = "refused"
    """Answered with another error. F§0.2: an answer means that the guest is thawed."""
    unanswered = "unanswered"
    """Never answered: the guest may still be frozen."""
    not_needed = "not_needed"


@dataclass
class FreezeReply:
    outcome: FreezeOutcome
    count: int | None = None
    message: str | None = None


@dataclass
class ThawReply:
    outcome: ThawOutcome
    count: int | None = None
    message: str | None = None
    attempts: int = 0
    #: libvirt did not send the thaw: libvirt takes the agent for broken until the agent restarts.
    agent_is_lost: bool = False


class GuardState(StrEnum):
    watching = "watching"
    thawing = "thawing"
    thawed = "thawed"


class GuardReason(StrEnum):
    """Why the guard thawed."""

    worker_gone = "worker_gone"
    deadline = "deadline"


@dataclass
class GuardReport:
    """What a thaw guard did. The guard fills this object, writes it into its file, and sends it when it is dismissed.

    A reader of the file sets the last two fields. `is_alive`: the guard still holds the lock of the file. `fault`: why the file could not
    be read. Then nothing else is known.
    """

    job_id: str
    domain: str | None = None
    pid: int | None = None
    state: GuardState | None = None
    reason: GuardReason | None = None
    outcome: ThawOutcome | None = None
    #: The count that answered the guard's thaw. None: the answer was `message`, or no answer came.
    count: int | None = None
    message: str | None = None
    attempts: int = 0
    thaw_sent_at: str | None = None
    thawed_at: str | None = None
    #: Instants as in WindowInstants, for the worker that dismisses the guard.
    thaw_sent_ns: int | None = None
    thaw_reply_ns: int | None = None
    is_alive: bool = False
    fault: str | None = None

    @property
    def is_settled(self) -> bool:
        """The guard's thaw was answered."""
        return self.state is GuardState.thawed

    @property
    def reply(self) -> ThawReply:
        return ThawReply(self.outcome or ThawOutcome.unanswered, self.count, self.message, self.attempts)

    def as_file(self) -> dict[str, Any]:
        document = asdict(self)
        return {name: value for name, value in document.items() if name not in ("is_alive", "fault")}

    def as_document(self) -> dict[str, Any]:
        """For the evidence of a recovered job. Instants of the monotonic clock mean nothing to its readers."""
        document = asdict(self)
        return {name: value for name, value in document.items() if name not in ("outcome", "thaw_sent_ns", "thaw_reply_ns")}

    def thaw_document(self) -> dict[str, Any]:
        """For the record of the window."""
        return {
            "reason": self.reason,
            "outcome": self.outcome,
            "count": self.count,
            "message": self.message,
            "attempts": self.attempts,
        }


@dataclass
class WindowRecord:
    """Filled by the window, read by the verdict. The record holds facts, without a judgement."""

    instants: WindowInstants = field(default_factory=WindowInstants)
    freeze: FreezeReply = field(default_factory=lambda: FreezeReply(FreezeOutcome.not_requested))
    thaw: ThawReply = field(default_factory=lambda: ThawReply(ThawOutcome.not_needed))
    #: The error of the call that took the point; None: the call returned without an error.
    point_error: str | None = None
    point_was_requested: bool = False
    #: The soft limit of the hold had passed before the point in time, so no point was requested.
    was_too_late: bool = False
    #: The watchdog thawed because the hold limit passed before the point was taken.
    watchdog_fired: bool = False
    #: The thaw guard died in the window, so the guest was thawed at once.
    guard_died: bool = False
    #: The report of a guard that thawed. None: the guard did not thaw.
    guard: GuardReport | None = None
    #: guest-fsfreeze-status just before the thaw; asked only where a hook's failure may replace the count in the thaw reply.
    frozen_before_thaw: bool | None = None
    #: guest-fsfreeze-status after the thaw; None: the agent did not answer.
    frozen_afterwards: bool | None = None
    #: After a thaw that was never answered: whether the guest was seen to write to its disks; None: that could not be observed.
    writes_afterwards: bool | None = None

    @property
    def guard_ended_the_hold(self) -> bool:
        """False also for a guard whose thaw was behind ours: ours got the full count, so the guest was frozen until then.

        A guard thaws when the deadline has passed and no thaw is answered. A Windows may answer later than that.
        """
        if self.guard is None:
            return False
        own, guards = self.instants.thaw_sent, self.guard.thaw_sent_ns
        was_behind = own is not None and guards is not None and own < guards
        return not (was_behind and self.thaw.outcome is ThawOutcome.completed)

    def as_document(self) -> dict[str, Any]:
        return {
            "freeze": {"outcome": self.freeze.outcome, "count": self.freeze.count, "message": self.freeze.message},
            "thaw": {
                "outcome": self.thaw.outcome,
                "count": self.thaw.count,
                "message": self.thaw.message,
                "attempts": self.thaw.attempts,
            },
            # The name by which callers know it.
            "snapshot_error": self.point_error,
            "was_too_late": self.was_too_late,
            "watchdog_fired": self.watchdog_fired,
            "guard_died": self.guard_died,
            "guard": self.guard.thaw_document() if self.guard else None,
            "frozen_before_thaw": self.frozen_before_thaw,
            "frozen_afterwards": self.frozen_afterwards,
            "writes_afterwards": self.writes_afterwards,
        }


def classify_freeze_error(message: str) -> FreezeOutcome:
    """An error *answered* by the agent: nothing is frozen (F§2: on an error the agent thaws everything itself)."""
    return FreezeOutcome.hook_failed if _is_hook_failure(message) else FreezeOutcome.refused


def classify_thaw_count(frozen: int | None, thawed: int) -> ThawOutcome:
    """`frozen`: the count of the freeze reply; None: no reply came."""
    if thawed == 0:
        return ThawOutcome.lost
    return ThawOutcome.completed if thawed == frozen else ThawOutcome.count_differs


def classify_thaw_error(message: str) -> ThawOutcome:
    """An error *answered* by the agent to a thaw: the guest is thawed nevertheless (F§0.2, F§2)."""
    return ThawOutcome.hook_failed if _is_hook_failure(message) else ThawOutcome.refused


def _is_hook_failure(message: str) -> bool:
    return any(text in message for text in HOOK_FAILURE_TEXTS)
