"""The verdict: a pure function of recorded evidence; the most pessimistic rule that matches wins (F§6.5)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.model.coverage_facts import LeftOut, Uncovered
from service.model.fuse import FuseReport, FuseState
from service.model.reasons import Reason, lifts, lowers, notes
from service.model.window import FreezeOutcome, ThawOutcome, WindowRecord
from service.model.windows import verdict as verdict_windows
from service.model.windows.verdict import WindowsEvidence


class Verdict(StrEnum):
    application = "application"
    application_unverified = "application_unverified"
    filesystem = "filesystem"
    crash = "crash"
    offline = "offline"
    none = "none"


_RANK = {Verdict.none: 0, Verdict.crash: 1, Verdict.filesystem: 2, Verdict.application_unverified: 3, Verdict.application: 4}


class HookState(StrEnum):
    """What is known of the guest's fsfreeze hook (F§2)."""

    absent = "absent"
    truthful = "truthful"
    """It declares that it passes the failures of its scripts on, and has at least one script."""
    swallowing = "swallowing"
    """It always exits 0, as the stock hook does: a failed script is invisible."""
    unknown = "unknown"
    """There is one, and it cannot be told whether it reports failures."""
    not_inspected = "not_inspected"


@dataclass(frozen=True)
class Evidence:
    """Everything the verdict may stand on. `None` means "not known" and never lifts."""

    domain_was_running: bool
    snapshot_taken: bool
    window: WindowRecord
    hold_limit_ms: float
    hook: HookState = HookState.not_inspected
    #: False: killed or crashed before; None: libvirt no longer knows.
    shut_off_cleanly: bool | None = None
    #: How many freezable filesystems the guest had mounted on the job's disks; None: it could not be asked.
    expected_filesystems: int | None = None
    #: Mounted on the job's disks, of a type that Linux cannot freeze (vfat, ...).
    unfreezable_filesystems: tuple[str, ...] = ()
    #: The same, and neither a boot partition nor read-only: data that was not held.
    unheld_filesystems: tuple[str, ...] = ()
    #: Disks of the job that no frozen filesystem covers.
    uncovered_disks: tuple[Uncovered, ...] = ()
    #: Disks that are not in the point although the guest has filesystems on them.
    left_out: tuple[LeftOut, ...] = ()
    #: What VSS did; None: the guest is no Windows.
    windows: WindowsEvidence | None = None
    #: What thaws the guest by itself; None: there was none.
    fuse: FuseReport | None = None


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    reasons: list[Reason] = field(default_factory=list)

    def as_documents(self) -> list[dict[str, Any]]:
        return [reason.as_document() for reason in self.reasons]


def satisfies(verdict: Verdict, required: Verdict, shut_off_cleanly: bool | None) -> bool:
    """Whether a verdict is good enough. A cleanly shut off domain has nothing in flight and satisfies everything."""
    if verdict is Verdict.offline:
        return shut_off_cleanly is True or required is Verdict.crash
    return _RANK[verdict] >= _RANK[required]


def judge(evidence: Evidence) -> Judgement:
    """The verdict and, in the order of the rules, every fact that lifted or lowered it."""
    if not evidence.snapshot_taken:
        return no_point()
    if not evidence.domain_was_running:
        return Judgement(Verdict.offline, [_offline_reason(evidence.shut_off_cleanly)])
    crash = list(_crash_reasons(evidence))
    if crash:
        return Judgement(Verdict.crash, [*crash, *_left_out_reasons(evidence, lowering=True), *_notes(evidence)])
    lifted = [lifts("held", _held_detail(evidence))]
    if evidence.windows is not None:
        return _judge_windows(evidence, evidence.windows, lifted)
    below_application = list(_below_application(evidence))
    if below_application:
        return Judgement(Verdict.filesystem, [*lifted, *below_application, *_notes(evidence)])
    lifted.append(lifts("hook_truthful", "The guest's fsfreeze hook reports failures, ran before the freeze, and reported none."))
    return Judgement(Verdict.application, [*lifted, *_notes(evidence)])


def _judge_windows(evidence: Evidence, windows: WindowsEvidence, lifted: list[Reason]) -> Judgement:
    for_the_reader = [*verdict_windows.writer_notes(windows), *_notes(evidence)]
    to_filesystem = [*verdict_windows.to_filesystem(windows), *_left_out_reasons(evidence, lowering=True)]
    to_unverified = list(verdict_windows.to_unverified(windows))
    if to_filesystem:
        return Judgement(Verdict.filesystem, [*lifted, *to_filesystem, *to_unverified, *for_the_reader])
    lifted.append(lifts("vss_completed", windows.reading.detail))
    verdict = Verdict.application_unverified if to_unverified else Verdict.application
    return Judgement(verdict, [*lifted, *to_unverified, *for_the_reader])


def no_point(code: str = "no_snapshot", detail: str = "No snapshot was taken.") -> Judgement:
    """The judgement of a job that has no point; as it stands here, because it took nothing."""
    return Judgement(Verdict.none, [lowers(code, detail)])


def host_forgotten() -> Judgement:
    """The judgement of a job whose host never came back."""
    detail = "The host never came back and was forgotten: nobody looked whether a snapshot was taken, so none is on record."
    return Judgement(Verdict.none, [lowers("host_forgotten", detail)])


# --- crash: the freeze does not cover the point in time -------------------------------------------


def _crash_reasons(evidence: Evidence) -> Iterator[Reason]:
    window = evidence.window
    yield from _freeze_reasons(evidence)
    if window.freeze.outcome is not FreezeOutcome.frozen:
        return
    if not window.instants.point_in_time_was_inside_the_hold:
        yield lowers("outside_the_hold", "The snapshot was not inside the interval between the freeze reply and the thaw.")
    hold_ms = window.instants.hold_ms
    if window.guard_died:
        yield lowers("guard_died", "The thaw guard died while the guest was frozen, so the guest was thawed at once.")
    elif window.guard is not None:
        why = {"worker_gone": "it took the worker for dead", "deadline": "the worker let the deadline pass"}[window.guard.reason]
        yield lowers("guard_thawed", f"The thaw guard thawed the guest, because {why}.")
    elif window.watchdog_fired:
        yield lowers(
            "hold_limit_exceeded", f"The point in time was not reached within {evidence.hold_limit_ms:.0f} ms, so the guest was thawed."
        )
    elif hold_ms is not None and hold_ms > evidence.hold_limit_ms:
        yield lowers("hold_limit_exceeded", f"Writes were held for {hold_ms:.0f} ms; the limit is {evidence.hold_limit_ms:.0f} ms.")
    if evidence.windows is not None:
        yield from verdict_windows.thaw_reasons(evidence.windows)
        return
    yield from _thaw_reasons(window)
    yield from _fuse_reasons(evidence)
    yield from _coverage_reasons(evidence)


def _freeze_reasons(evidence: Evidence) -> Iterator[Reason]:
    freeze = evidence.window.freeze
    said = f" It said: {freeze.message}" if freeze.message else ""
    match freeze.outcome:
        case FreezeOutcome.frozen:
            if freeze.count is None or freeze.count <= 0:
                yield lowers("freeze_count_invalid", f"The agent's count of frozen filesystems is {freeze.count}.")
        case FreezeOutcome.empty:
            yield _nothing_frozen(evidence.expected_filesystems)
        case FreezeOutcome.absurd:
            yield lowers("freeze_count_invalid", f"The agent's count of frozen filesystems is {freeze.count}, which cannot be.")
        case FreezeOutcome.refused:
            yield lowers("freeze_refused", f"The agent refused to freeze.{said}")
        case FreezeOutcome.blocked:
            yield lowers("freeze_blocked", f"The agent no longer took the freeze, though it did just before.{said}")
        case FreezeOutcome.hook_failed:
            yield lowers("freeze_hook_failed", f"The guest's fsfreeze hook failed, so nothing was frozen.{said}")
        case FreezeOutcome.unanswered:
            yield lowers("freeze_unanswered", f"The agent did not answer the freeze in time.{said}")
        case FreezeOutcome.not_possible:
            yield lowers("freeze_not_possible", freeze.message or "The guest could not be frozen.")
        case FreezeOutcome.not_requested:
            yield lowers("freeze_off", "The job asked for no freeze.")
        case FreezeOutcome.not_needed:
            yield lowers("freeze_skipped", "The guest was not frozen.")


def _nothing_frozen(expected: int | None) -> Reason:
    if not expected:
        return lowers("nothing_frozen", "The agent answered that it froze no filesystem.")
    what = f"{expected} filesystems that can be frozen are mounted, and the agent froze none"
    return lowers("nothing_frozen", f"{what}: they are frozen already, from inside the guest, or refuse it.")


def _thaw_reasons(window: WindowRecord) -> Iterator[Reason]:
    thaw = window.thaw
    match thaw.outcome:
        case ThawOutcome.completed:
            pass
        case ThawOutcome.count_differs:
            yield lowers(
                "thaw_count_differs",
                f"{window.freeze.count} filesystem(s) were frozen and {thaw.count} thawed: some were thawed or frozen by somebody else.",
            )
        case ThawOutcome.lost:
            yield lowers("thaw_lost", "There was nothing left to thaw: somebody thawed the guest before, or its agent was started anew.")
        case ThawOutcome.hook_failed:
            if window.frozen_before_thaw is not True:
                yield lowers(
                    "hold_not_proven", "The thaw reply carries the hook's failure instead of the count, so nothing proves the hold."
                )
        case ThawOutcome.refused:
            yield lowers("thaw_refused", f"The agent answered the thaw with an error: {thaw.message}")
        case ThawOutcome.unanswered:
            yield lowers("thaw_unanswered", "The thaw was never answered, so nothing proves that the freeze held.")
        case ThawOutcome.not_needed:
            yield lowers("thaw_not_sent", "No thaw was recorded.")


def _fuse_reasons(evidence: Evidence) -> Iterator[Reason]:
    """A full count of the thaw proves that the fuse had not burned before it. The agent's word that it is frozen does not."""
    fuse, thaw = evidence.fuse, evidence.window.thaw
    if fuse is None or thaw.outcome is ThawOutcome.completed or not fuse.may_have_fired:
        return
    if fuse.state is FuseState.fired:
        yield lowers("fuse_fired", "The fuse in the guest burned down: the guest thawed itself, and the hold ended then.")
    else:
        yield lowers("fuse_unknown", f"Nothing proves that the fuse in the guest did not end the hold: {fuse.reason}")


def _coverage_reasons(evidence: Evidence) -> Iterator[Reason]:
    count, expected = evidence.window.freeze.count, evidence.expected_filesystems
    if count is not None and expected is not None and 0 < count < expected:
        yield lowers("fewer_frozen_than_mounted", f"{expected} filesystems that can be frozen are mounted, and {count} were frozen.")
    for disk in evidence.uncovered_disks:
        yield lowers("disk_not_covered", f"{disk.target}: {disk.why}.")
    if evidence.unheld_filesystems:
        names = ", ".join(evidence.unheld_filesystems)
        yield lowers("filesystems_not_held", f"Mounted for writing, and of a type that cannot be frozen: {names}.")


def _left_out_reasons(evidence: Evidence, *, lowering: bool) -> Iterator[Reason]:
    """Applications may keep a part of their data there. What the caller left out by naming others is only told."""
    for disk in evidence.left_out:
        if disk.costs_application is not lowering:
            continue
        where = ", ".join(disk.mountpoints)
        detail = f"{disk.target} is not in the point, and the guest has data mounted on it ({where}): {disk.reason}."
        yield (lowers if lowering else notes)("mounted_data_left_out", detail)


# --- between filesystem and application -----------------------------------------------------------


def _below_application(evidence: Evidence) -> Iterator[Reason]:
    yield from _left_out_reasons(evidence, lowering=True)
    if evidence.window.thaw.outcome is ThawOutcome.hook_failed:
        yield lowers("thaw_hook_failed", f"The guest's fsfreeze hook failed on thaw: {evidence.window.thaw.message}")
    match evidence.hook:
        case HookState.truthful:
            pass
        case HookState.absent:
            yield lowers("no_hook", "The guest has no fsfreeze hook, so its applications were not told.")
        case HookState.swallowing:
            yield lowers(
                "hook_swallows_failures", "The guest's fsfreeze hook exits 0 whatever its scripts do, so it proves nothing about them."
            )
        case HookState.unknown:
            yield lowers("hook_truth_unknown", "The guest has an fsfreeze hook, and it is not known whether it reports failures.")
        case HookState.not_inspected:
            yield lowers("hook_not_inspected", "Whether the guest has an fsfreeze hook could not be read.")


# --- for the reader -------------------------------------------------------------------------------


def _notes(evidence: Evidence) -> Iterator[Reason]:
    yield from _left_out_reasons(evidence, lowering=False)
    if evidence.window.frozen_afterwards is True:
        yield notes("frozen_afterwards", "After the thaw the agent still said that the guest is frozen.")
    if evidence.unfreezable_filesystems:
        names = ", ".join(evidence.unfreezable_filesystems)
        yield notes("filesystems_not_freezable", f"Of a type that cannot be frozen, so only crash-consistent: {names}.")
    is_unknown = evidence.windows is None and evidence.expected_filesystems is None
    if evidence.window.freeze.outcome is FreezeOutcome.frozen and is_unknown:
        yield notes("coverage_unknown", "The agent did not list the filesystems, so their number could not be compared.")


def _held_detail(evidence: Evidence) -> str:
    window = evidence.window
    if evidence.windows is not None:
        return f"The point in time lies inside a hold of {window.instants.hold_ms or 0.0:.1f} ms."
    proof = (
        f"{window.thaw.count} of {window.freeze.count} filesystem(s) were thawed after it"
        if window.thaw.outcome is ThawOutcome.completed
        else "the guest was still frozen just before the thaw"
    )
    return f"The point in time lies inside a hold of {window.instants.hold_ms or 0.0:.1f} ms, and {proof}."


def _offline_reason(cleanly: bool | None) -> Reason:
    if cleanly is True:
        return lifts("shut_down_cleanly", "The domain was shut down by itself, so nothing was in flight.")
    if cleanly is False:
        return lowers("shut_off_by_force", "The domain was destroyed or crashed: its filesystems recover at the next start.")
    return lowers("shut_off_unknown", "The domain is shut off, and libvirt does not know how that came about.")
