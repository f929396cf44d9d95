"""The verdict: a pure function of recorded evidence; the most pessimistic rule that matches wins (F§6.5)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.model.coverage_facts import LeftOut, Uncovered
from service.model.fuse import FuseReport, FuseState
from service.model.policy import FreezeMode
from service.model.reasons import Reason, lifts, lowers, notes
from service.model.window import FreezeOutcome, GuardReason, ThawOutcome, WindowRecord
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
    """The facts about the guest's fsfreeze hook (F§2)."""

    absent = "absent"
    truthful = "truthful"
    """The hook declares that it reports the failures of its scripts, and has at least one script."""
    swallowing = "swallowing"
    """The hook always exits with 0, as the stock hook does: a failed script is invisible."""
    unknown = "unknown"
    """The guest has a hook. Whether the hook reports failures is not known."""
    not_inspected = "not_inspected"


@dataclass(frozen=True)
class Evidence:
    """Everything that the verdict may use. `None` means "not known", and never lifts the verdict."""

    domain_was_running: bool
    point_taken: bool
    window: WindowRecord
    hold_limit_ms: float
    hook: HookState = HookState.not_inspected
    #: False: the domain was killed or crashed; None: libvirt does not know any more.
    shut_off_cleanly: bool | None = None
    #: How many freezable filesystems the guest had mounted on the job's disks; None: the guest could not be asked.
    expected_filesystems: int | None = None
    #: Filesystems on the job's disks of a type that Linux cannot freeze (vfat, ...).
    unfreezable_filesystems: tuple[str, ...] = ()
    #: The unfreezable filesystems that are neither a boot partition nor read-only. Their data was not held.
    unheld_filesystems: tuple[str, ...] = ()
    #: Disks of the job that no frozen filesystem covers.
    uncovered_disks: tuple[Uncovered, ...] = ()
    #: Disks that are not in the point although the guest has filesystems on them.
    left_out: tuple[LeftOut, ...] = ()
    #: What VSS did; None: the guest is not Windows.
    windows: WindowsEvidence | None = None
    #: The fuse in the guest; None: the guest had no fuse.
    fuse: FuseReport | None = None


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    reasons: list[Reason] = field(default_factory=list)

    def as_documents(self) -> list[dict[str, Any]]:
        return [reason.as_document() for reason in self.reasons]


def satisfies(verdict: Verdict, required: Verdict, shut_off_cleanly: bool | None) -> bool:
    """Whether a verdict is good enough. A domain that was shut down cleanly has written everything, and satisfies every demand."""
    if verdict is Verdict.offline:
        return shut_off_cleanly is True or required is Verdict.crash
    return _RANK[verdict] >= _RANK[required]


def required_verdict(asked: Verdict | None, mode: FreezeMode, *, was_running: bool = True) -> Verdict:
    """What the caller demands. A caller who names no verdict gets what the freeze mode promises."""
    if asked is not None:
        return asked
    return Verdict.filesystem if mode is FreezeMode.required and was_running else Verdict.crash


def judge(evidence: Evidence) -> Judgement:
    """The verdict, and every fact that lifted or lowered the verdict, in the order of the rules."""
    if not evidence.point_taken:
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


def disks_in_doubt() -> Judgement:
    return no_point("disks_in_doubt", "Not every disk is on its overlay: there is no one point in time.")


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
        yield lowers("outside_the_hold", "The snapshot was not taken between the freeze reply and the thaw.")
    hold_ms = window.instants.hold_ms
    if window.guard_died:
        yield lowers("guard_died", "The thaw guard died while the guest was frozen, so the guest was thawed at once.")
    elif window.guard is not None and window.guard_ended_the_hold:
        why = "the deadline passed" if window.guard.reason is GuardReason.deadline else "the worker seemed dead"
        yield lowers("guard_thawed", f"The thaw guard thawed the guest, because {why}.")
    elif window.watchdog_fired:
        yield lowers("hold_limit_exceeded", f"The snapshot did not end within {evidence.hold_limit_ms:.0f} ms, so the guest was thawed.")
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
    message = f" The message: {freeze.message}" if freeze.message else ""
    match freeze.outcome:
        case FreezeOutcome.frozen:
            if freeze.count is None or freeze.count <= 0:
                yield lowers("freeze_count_invalid", f"The agent's count of frozen filesystems is {freeze.count}.")
        case FreezeOutcome.empty:
            yield _nothing_frozen(evidence.expected_filesystems)
        case FreezeOutcome.absurd:
            yield lowers("freeze_count_invalid", f"The agent's count of frozen filesystems is {freeze.count}, which is impossible.")
        case FreezeOutcome.refused:
            yield lowers("freeze_refused", f"The agent refused to freeze.{message}")
        case FreezeOutcome.blocked:
            yield lowers("freeze_blocked", f"The agent refused the freeze, although it accepted commands just before.{message}")
        case FreezeOutcome.hook_failed:
            yield lowers("freeze_hook_failed", f"The guest's fsfreeze hook failed, so nothing was frozen.{message}")
        case FreezeOutcome.unanswered:
            yield lowers("freeze_unanswered", f"The agent did not answer the freeze in time.{message}")
        case FreezeOutcome.not_possible:
            yield lowers("freeze_not_possible", freeze.message or "The guest could not be frozen.")
        case FreezeOutcome.not_requested:
            yield lowers("freeze_off", "The job turned the freeze off.")
        case FreezeOutcome.not_needed:
            yield lowers("freeze_skipped", "The guest was not frozen.")


def _nothing_frozen(expected: int | None) -> Reason:
    if not expected:
        return lowers("nothing_frozen", "The agent answered that it froze no filesystem.")
    what = f"{expected} filesystems that can be frozen are mounted, and the agent froze none of them"
    return lowers("nothing_frozen", f"{what}. Either a program in the guest has frozen them already, or they refuse the freeze.")


def _thaw_reasons(window: WindowRecord) -> Iterator[Reason]:
    thaw = window.thaw
    match thaw.outcome:
        case ThawOutcome.completed:
            pass
        case ThawOutcome.count_differs:
            yield lowers(
                "thaw_count_differs",
                f"{window.freeze.count} filesystem(s) were frozen and {thaw.count} thawed: another client thawed or froze some of them.",
            )
        case ThawOutcome.lost:
            detail = "Nothing was left to thaw: another client thawed the guest before, or the agent in the guest restarted."
            yield lowers("thaw_lost", detail)
        case ThawOutcome.hook_failed:
            if window.frozen_before_thaw is not True:
                yield lowers("hold_not_proven", "The thaw reply has the hook's failure in place of the count, so nothing proves the hold.")
        case ThawOutcome.refused:
            yield lowers("thaw_refused", f"The agent answered the thaw with an error: {thaw.message}")
        case ThawOutcome.unanswered:
            yield lowers("thaw_unanswered", "The thaw was never answered, so nothing proves that the freeze held.")
        case ThawOutcome.not_needed:
            yield lowers("thaw_not_sent", "No thaw is on record.")


def _fuse_reasons(evidence: Evidence) -> Iterator[Reason]:
    """A thaw that answers the full count proves that the fuse had not fired. The agent's status `frozen` does not prove that."""
    fuse, thaw = evidence.fuse, evidence.window.thaw
    if fuse is None or thaw.outcome is ThawOutcome.completed or not fuse.may_have_fired:
        return
    if fuse.state is FuseState.fired:
        yield lowers("fuse_fired", "The fuse in the guest fired: the guest thawed itself, and the hold ended then.")
    else:
        yield lowers("fuse_unknown", f"The fuse in the guest may have ended the hold: {fuse.reason}")


def _coverage_reasons(evidence: Evidence) -> Iterator[Reason]:
    count, expected = evidence.window.freeze.count, evidence.expected_filesystems
    if count is not None and expected is not None and 0 < count < expected:
        yield lowers("fewer_frozen_than_mounted", f"{expected} filesystems that can be frozen are mounted, but only {count} were frozen.")
    for disk in evidence.uncovered_disks:
        yield lowers("disk_not_covered", f"{disk.target}: {disk.why}.")
    if evidence.unheld_filesystems:
        names = ", ".join(evidence.unheld_filesystems)
        yield lowers("filesystems_not_held", f"Filesystems that are mounted for writing and cannot be frozen: {names}.")


def _left_out_reasons(evidence: Evidence, *, lowering: bool) -> Iterator[Reason]:
    """Applications may keep data on a disk that is left out. A disk that the caller left out on purpose does not lower the verdict."""
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
            yield lowers("no_hook", "The guest has no fsfreeze hook, so its applications took no part in the freeze.")
        case HookState.swallowing:
            detail = "The guest's fsfreeze hook exits with 0 also when its scripts fail, so it proves nothing about them."
            yield lowers("hook_swallows_failures", detail)
        case HookState.unknown:
            yield lowers("hook_truth_unknown", "The guest has an fsfreeze hook. It is not known whether the hook reports failures.")
        case HookState.not_inspected:
            yield lowers("hook_not_inspected", "The service could not read whether the guest has an fsfreeze hook.")


# --- for the reader -------------------------------------------------------------------------------


def _notes(evidence: Evidence) -> Iterator[Reason]:
    yield from _left_out_reasons(evidence, lowering=False)
    if evidence.window.frozen_afterwards is True:
        yield notes("frozen_afterwards", "After the thaw the agent still said that the guest is frozen.")
    if evidence.unfreezable_filesystems:
        names = ", ".join(evidence.unfreezable_filesystems)
        yield notes("filesystems_not_freezable", f"Filesystems that cannot be frozen, and so are only crash-consistent: {names}.")
    is_unknown = evidence.windows is None and evidence.expected_filesystems is None
    if evidence.window.freeze.outcome is FreezeOutcome.frozen and is_unknown:
        yield notes("coverage_unknown", "The agent did not list the filesystems, so their number could not be compared.")


def _held_detail(evidence: Evidence) -> str:
    window = evidence.window
    if evidence.windows is not None:
        return f"The snapshot was taken inside a hold of {window.instants.hold_ms or 0.0:.1f} ms."
    proof = (
        f"{window.thaw.count} of {window.freeze.count} filesystem(s) were thawed after it"
        if window.thaw.outcome is ThawOutcome.completed
        else "the guest was still frozen just before the thaw"
    )
    return f"The snapshot was taken inside a hold of {window.instants.hold_ms or 0.0:.1f} ms, and {proof}."


def _offline_reason(cleanly: bool | None) -> Reason:
    if cleanly is True:
        return lifts("shut_down_cleanly", "The guest was shut down cleanly, so all its data was written.")
    if cleanly is False:
        return lowers("shut_off_by_force", "The domain was destroyed or crashed: its filesystems recover at the next start.")
    return lowers("shut_off_unknown", "The domain is shut off, and libvirt does not know how it was shut off.")
