"""The error of a job whose window failed."""

from service.clock import rfc3339
from service.errors import (
    FreezeFailed,
    GuestAlreadyFrozen,
    GuestHookHangs,
    GuestStillFrozen,
    HoldSpent,
    NothingFrozen,
    StillpointError,
    ThawUnanswered,
    VssFreezeFailed,
)
from service.freeze import hung_hook
from service.freeze.documents import timing_document
from service.freeze.passed import Passed
from service.hypervisor.guest import Guest
from service.model.foreign_freeze import by_another
from service.model.window import FreezeOutcome
from service.model.windows.vss_outcome import read_freeze_error


def why_not_held(guest: Guest, passed: Passed) -> StillpointError | None:
    """None: by the record of the window, the freeze held when the point was asked for, or no freeze was wanted."""
    window, scope = passed.window, passed.terms.scope
    if window.freeze.outcome is FreezeOutcome.blocked and window.frozen_afterwards:
        seen = window.instants.freeze_reply
        since = rfc3339(passed.wall.at(seen)) if seen is not None else None
        # The guest was thawed when this job looked, and this job froze nothing.
        return GuestAlreadyFrozen(domain=guest.name, frozen_by=by_another(), frozen_since=since)
    if passed.vss is not None and window.freeze.outcome is FreezeOutcome.refused:
        failure = read_freeze_error(window.freeze.message or "")
        return VssFreezeFailed(
            domain=guest.name,
            what=failure.detail,
            message=(window.freeze.message or "").strip(),
            advice=failure.remedy,
            vss_code=failure.code,
            step=failure.step,
            transient=failure.is_transient,
        )
    if window.was_too_late:
        spent = "the time for it had passed before it could be asked for"
        why = "its thaw guard died" if window.guard_died else spent
        return HoldSpent(domain=guest.name, why=why)
    if window.freeze.outcome is FreezeOutcome.empty and scope is not None and scope.expected:
        return NothingFrozen(domain=guest.name, expected=scope.expected)
    if not window.point_was_requested:
        return FreezeFailed(domain=guest.name, outcome=window.freeze.outcome.value, message=window.freeze.message or "nothing was frozen")
    return None


def still_frozen(guest: Guest, passed: Passed) -> StillpointError:
    """The error of a guest that answered no thaw. Its writes to the disks show whether the guest is frozen."""
    window, survey = passed.window, passed.terms.survey
    message = (window.thaw.message or "no answer").rstrip(".")
    if window.writes_afterwards:
        return ThawUnanswered(domain=guest.name, message=message)
    tried_ms = timing_document(passed)["thaw_ms"]
    disks = () if window.thaw.agent_is_lost else hung_hook.disks_that_go_on(guest, survey)
    if not disks:
        left_s = passed.fuse.seconds_left() if passed.fuse is not None else None
        fuse = f". The fuse in the guest thaws it in {left_s:.0f} s at the latest" if left_s is not None else ""
        return GuestStillFrozen(domain=guest.name, tried_ms=tried_ms, message=message + fuse, fuse_left_s=left_s)
    was_frozen = window.freeze.outcome is FreezeOutcome.frozen
    return GuestHookHangs(
        domain=guest.name,
        command="its thaw" if was_frozen else "its freeze and then a thaw",
        tried_ms=tried_ms,
        disks=", ".join(disks),
        hook=(survey.linux.hook_path if survey.linux else None) or "one that could not be read",
    )
