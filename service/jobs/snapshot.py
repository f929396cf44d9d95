"""The job kind `snapshot`: an external snapshot of a domain's disks, inside a freeze, with its verdict."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from service import log
from service.errors import (
    AgentAnswerUnreadable,
    AgentBusy,
    AgentCommandBlocked,
    AgentCommandFailed,
    AgentNotAnswering,
    DomainBusy,
    DomainPaused,
    DomainStateUnsuitable,
    GuestAlreadyFrozen,
    LibvirtUnavailable,
    OverlaysLeft,
    StillpointError,
)
from service.hypervisor.guest import Guest
from service.jobs import (
    at_rest,
    disk_images,
    freeze_lease,
    freeze_window,
    fuse,
    image_users,
    images,
    lost_agent,
    overlays,
    rehearsal,
    snapshot_outcome,
    storage,
    vss_evidence,
)
from service.jobs.at_rest import GuestsOfHost, no_others
from service.jobs.attempt import Attempt
from service.jobs.disk_user import disk_user_of
from service.jobs.freeze_window import THAW_PATIENCE_S, WindowGuard, WindowPlan
from service.jobs.fuse import Fuse
from service.jobs.guard import Guard, GuardSource, NoGuards, Unguarded
from service.jobs.intent import Intent
from service.jobs.overlays import Overlay
from service.jobs.preflush import preflush
from service.jobs.run import JobRun, MustRecover, Phase
from service.jobs.survey import survey
from service.jobs.vss_evidence import SETTLE_BUDGET_S
from service.model.checks import why_not_freezable
from service.model.inventory import DomainState, OsFamily, Survey
from service.model.lifecycle import PhaseName, PhaseOutcome
from service.model.policy import FreezeMode, FreezePolicy
from service.model.scope import freeze_scope, select_disks
from service.model.verdict import HookState
from service.model.vss_outcome import MOST_VOLUMES
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, WindowRecord
from service.model.writer_rules import DEFAULT_RULES, WriterRules

LOOK_PATIENCE_S = 120.0
"""How long a libvirt that went away under the snapshot call is waited for before the disks are called unknown."""
LOOK_PAUSE_S = 0.5
AGENT_PATIENCE_MS = 2_000
"""How long another client's agent command is waited for before the freeze is given up."""
BEFORE_THE_WINDOW = "what comes before the freeze, with"
_AGENT_FAULTS = (AgentBusy, AgentNotAnswering, AgentCommandBlocked, AgentCommandFailed, AgentAnswerUnreadable)
"""Nothing but the agent is in the way."""

_logger = log.get(__name__)


@dataclass(frozen=True)
class SnapshotSettings:
    overlay_dir: Path | None
    overlay_reserve_bytes: int
    thaw_patience_s: float = THAW_PATIENCE_S
    writers_settle_s: float = SETTLE_BUDGET_S
    writer_rules: WriterRules = DEFAULT_RULES
    guards: GuardSource = field(default_factory=NoGuards)
    guests_of_host: GuestsOfHost = no_others


def run_snapshot(run: JobRun, guest: Guest, settings: SnapshotSettings) -> None:
    """Every phase of the job, in order; finishes the job.

    Raises StillpointError where the job ended before the window: then nothing was frozen and no overlay is left.
    Where the window has begun (`JobRun.may_have_point`), an error leaves the job to recovery, which looks at the disks.
    """
    attempt = Attempt(freeze_policy(run))
    with storage.refusals(BEFORE_THE_WINDOW):
        with run.phase(PhaseName.preflight):
            _preflight(run, guest, attempt, settings)
        read_writers_before(run, guest, attempt)
        guard = settings.guards.appoint(run.claim.job_id, run.claim.domain_id, guest.name) if attempt.will_freeze else Unguarded()
    with guard:
        with storage.refusals(BEFORE_THE_WINDOW):
            take = _make_ready(run, guest, attempt, settings, guard)
        _take_point(run, guest, attempt, take, thaw_patience_s=settings.thaw_patience_s, guard=guard)
        if not attempt.is_running and attempt.point_was_taken:
            _look_again(guest, attempt, settings)
    read_writers_after(run, guest, attempt, settings.writers_settle_s)
    snapshot_outcome.conclude(run, guest, attempt, settings.writer_rules)
    settings.guards.forget(run.claim.job_id)


def freeze_policy(run: JobRun) -> FreezePolicy:
    """The freeze that the job asks for, defaults filled in."""
    asked: dict[str, Any] = {name: value for name, value in (run.claim.request.get("freeze") or {}).items() if value is not None}
    if "mode" in asked:
        asked["mode"] = FreezeMode(asked["mode"])
    return FreezePolicy(**asked)


# --- before the window ----------------------------------------------------------------------------


def _preflight(run: JobRun, guest: Guest, attempt: Attempt, settings: SnapshotSettings) -> None:
    found = look(run, guest, attempt)
    found.disks = disk_images.examined(found.disks)
    attempt.selection = select_disks(
        guest.name, found.disks, run.claim.request.get("disks"), has_overlay_dir=settings.overlay_dir is not None
    )
    taken = attempt.selection.taken
    attempt.disk_user = disk_user_of(guest, found.state)
    images.refuse_missing(guest.name, taken, attempt.disk_user)
    _must_be_at_rest(guest, attempt, settings)
    overlays.check_space(overlays.spaces(taken, settings.overlay_dir, settings.overlay_reserve_bytes))
    if found.state is not DomainState.running or attempt.policy.mode is FreezeMode.off:
        outcome = FreezeOutcome.not_needed if found.state is DomainState.shut_off else FreezeOutcome.not_requested
        attempt.window.freeze = FreezeReply(outcome)
        return
    attempt.policy.hold_limits(is_windows=found.is_windows)
    attempt.scope = freeze_scope(found, taken)
    fault = why_not_freezable(found, attempt.scope)
    if fault is None:
        return
    # A guest that somebody else holds is never inherited, not even for a point that needs no freeze.
    if attempt.policy.mode is FreezeMode.required or isinstance(fault, GuestAlreadyFrozen):
        raise fault
    _go_on_without_freeze(run, attempt, fault)


def _must_be_at_rest(guest: Guest, attempt: Attempt, settings: SnapshotSettings) -> None:
    assert attempt.selection is not None
    fault = at_rest.why_not_at_rest(guest, attempt.selection.taken, settings.guests_of_host)
    if fault is not None:
        raise fault


def _go_on_without_freeze(run: JobRun, attempt: Attempt, fault: StillpointError) -> None:
    attempt.freeze_fault = fault
    attempt.window.freeze = FreezeReply(FreezeOutcome.not_possible, message=fault.detail)
    run.write({"freeze": snapshot_outcome.freeze_document(attempt)})


def look(run: JobRun, guest: Guest, attempt: Attempt) -> Survey:
    found = attempt.survey = survey(guest)
    if found.agent.frozen:
        found.foreign_freeze = run.foreign_freeze()
    _check_state(found, attempt.policy)
    return found


def _check_state(found: Survey, policy: FreezePolicy) -> None:
    if found.state is DomainState.paused and policy.mode is not FreezeMode.off:
        raise DomainPaused(domain=found.domain, state="paused")
    if found.state is DomainState.other:
        raise DomainStateUnsuitable(domain=found.domain, state="neither running nor shut off")
    if found.busy:
        raise DomainBusy(domain=found.domain, what="; ".join(f"{target or 'domain'}: {job}" for target, job in found.busy.items()))


def read_writers_before(run: JobRun, guest: Guest, attempt: Attempt) -> None:
    if not (attempt.will_freeze and attempt.found.is_windows):
        return
    with run.phase(PhaseName.writers_before) as phase:
        attempt.vss = vss_evidence.read_before(guest, attempt.found)
        attempt.drift = run.remember(attempt.found, attempt.vss)
        if attempt.vss.before.unavailable:
            phase.warn(attempt.vss.before.unavailable)


def _make_ready(run: JobRun, guest: Guest, attempt: Attempt, settings: SnapshotSettings, guard: Guard | Unguarded) -> Callable[[], None]:
    """Everything that the window needs; the answer takes the point in time. Whatever goes wrong, no overlay is left."""
    try:
        with run.phase(PhaseName.prepare) as phase:
            _prepare(run, guest, attempt, settings)
            flush(guest, attempt, phase)
            guard.wait_until_ready()
        if not attempt.is_running:
            _must_still_be_off(guest, attempt, settings)
        overlays.must_be_there(attempt.overlays)
        take = guest.prepare_snapshot({overlay.target: overlay.path for overlay in attempt.overlays})
        announce_window(run, guest, attempt)
    except BaseException as error:
        _remove_again(run, attempt, error)
        raise
    return take


def _must_still_be_off(guest: Guest, attempt: Attempt, settings: SnapshotSettings) -> None:
    """Making the overlays took a while, and nothing of libvirt keeps anybody from starting the domain, or its twin."""
    if not guest.is_shut_off():
        raise DomainStateUnsuitable(domain=guest.name, state="being started while the point was prepared")
    _must_be_at_rest(guest, attempt, settings)


def _remove_again(run: JobRun, attempt: Attempt, why: BaseException) -> None:
    """What ended the job stays its error; a file that cannot be removed is told in the phase of it."""
    try:
        overlays.remove(attempt.overlays)
    except OverlaysLeft as left:
        _logger.error("overlays_left", job_id=run.claim.job_id, paths=left.facts["paths"], reason=left.facts["reason"], after=str(why))
        with run.phase_that_cannot_be_cancelled(PhaseName.evaluate) as phase:
            phase.warn(left.detail)


def announce_window(run: JobRun, guest: Guest, attempt: Attempt) -> None:
    """The last safe point, and the last write before the freeze."""
    instance = guest.instance() if attempt.will_freeze else None
    if attempt.will_freeze:
        _ask_for_the_agent(run, guest, attempt)
    run.safe_point(PhaseName.freeze)

    def announced(now: datetime) -> dict[str, Any]:
        attempt.intent = _intent_of_window(attempt, instance, now)
        return {"phase": PhaseName.freeze.value, "intent": attempt.intent.as_document()}

    run.write_now(announced)
    run.point_is_pending()


def _ask_for_the_agent(run: JobRun, guest: Guest, attempt: Attempt) -> None:
    """An agent that is not to be had is as good a reason to go on without a freeze, where that is allowed, as one that never answered."""
    try:
        guest.must_be_free(AGENT_PATIENCE_MS)
    except _AGENT_FAULTS as fault:
        if attempt.policy.mode is not FreezeMode.preferred:
            raise
        if guest.running_libvirt_job():
            raise DomainBusy(domain=guest.name, what="a backup, migration or save began after it was looked at") from fault
        # What was read of the writers speaks of a freeze that is not sent.
        attempt.vss = None
        _go_on_without_freeze(run, attempt, fault)


def _intent_of_window(attempt: Attempt, instance: int | None, now: datetime) -> Intent:
    """Whoever looks at the row now, or finds it after our death, knows that the guest may be frozen, and since when and for how long."""
    if not attempt.will_freeze:
        return Intent(False, attempt.overlays)
    limit_ms = attempt.policy.timeout_ms + attempt.hold_limits.hard_ms
    return Intent(True, attempt.overlays, instance, freeze_lease.window_document(limit_ms, now))


def _prepare(run: JobRun, guest: Guest, attempt: Attempt, settings: SnapshotSettings) -> None:
    assert attempt.selection is not None
    assert attempt.disk_user is not None
    planned = overlays.plan(guest, attempt.selection.taken, run.claim.job_id, run.claim.attempt, settings.overlay_dir)
    overlays.refuse_existing(planned)
    # Before the first file is made: whoever finds this row after our death knows which files are ours.
    run.write({"intent": Intent(will_freeze=False, overlays=planned).as_document()})
    attempt.overlays = overlays.create(planned)
    # And which ones they are: under their names others may lie by then.
    run.write({"intent": Intent(will_freeze=False, overlays=attempt.overlays).as_document()})
    rehearsal.must_work(guest, attempt.disk_user, attempt.overlays)


def flush(guest: Guest, attempt: Attempt, phase: Phase) -> None:
    """The dirty pages of a guest that will be frozen, if that is wanted and can be done; what went wrong is a warning."""
    agent = attempt.found.agent
    if attempt.will_freeze and attempt.policy.preflush and agent.os_family is OsFamily.linux and agent.allows("guest-exec"):
        attempt.preflush = preflush(guest).as_document()
        if attempt.preflush["message"]:
            phase.warn(f"pre-flush: {attempt.preflush['message']}")


# --- the window and what is around it -------------------------------------------------------------


def _take_point(
    run: JobRun, guest: Guest, attempt: Attempt, take: Callable[[], None], *, thaw_patience_s: float, guard: WindowGuard
) -> None:
    if attempt.will_freeze:
        pass_window(guest, attempt, take, thaw_patience_s=thaw_patience_s, guard=guard)
    if not attempt.window.snapshot_was_called and _may_go_on_without_freeze(attempt):
        _take_unfrozen(take, attempt.window)
    attempt.switched = _look_at_disks(guest, attempt.overlays) if attempt.window.snapshot_was_called else {}
    record_window(run, attempt)


def pass_window(guest: Guest, attempt: Attempt, take: Callable[[], None], *, thaw_patience_s: float, guard: WindowGuard) -> None:
    policy = attempt.policy
    assert attempt.scope is not None
    plan = WindowPlan(
        mountpoints=attempt.scope.mountpoints,
        freeze_timeout_ms=policy.timeout_ms,
        hold_limit_ms=attempt.hold_limits.hard_ms,
        hold_soft_ms=attempt.hold_limits.soft_ms,
        most_filesystems=MOST_VOLUMES if attempt.found.is_windows else None,
        confirm_before_thaw=not attempt.found.is_windows and attempt.found.hook is not HookState.absent,
        # A hook that has prepared its applications is told of the end by the thaw alone.
        spares_foreign_freeze=not attempt.found.is_windows and attempt.found.hook is HookState.absent,
        thaw_patience_s=thaw_patience_s,
    )
    # After the last write to the database: one that is away would be waited for while the fuse burns.
    attempt.fuse = fuse.arm_for(guest, attempt.found, policy)
    attempt.window = freeze_window.run(guest, take, plan, guard)
    if attempt.window.thaw.agent_is_lost:
        lost_agent.look_from_outside(guest, attempt)
    elif attempt.fuse is not None and attempt.window.thaw.outcome is not ThawOutcome.unanswered:
        attempt.fuse = Fuse(None, fuse.disarm(guest, attempt.fuse))


def record_window(run: JobRun, attempt: Attempt) -> None:
    run.add_window_phases(attempt.window.instants, _phase_outcomes(attempt.window), attempt.wall)
    # Answered, or seen to write: a guest that is found frozen later was frozen by somebody else.
    is_open = attempt.will_freeze and attempt.window.thaw.outcome is ThawOutcome.unanswered and not attempt.window.writes_afterwards
    run.write(
        {
            "phase": PhaseName.writers_after.value if attempt.vss else PhaseName.evaluate.value,
            "intent": replace(attempt.intent, will_freeze=is_open).as_document(),
            "freeze": snapshot_outcome.freeze_document(attempt),
            "timing": snapshot_outcome.timing_document(attempt),
        }
    )


def read_writers_after(run: JobRun, guest: Guest, attempt: Attempt, settle_s: float) -> None:
    if attempt.vss is None:
        return
    with run.phase_that_cannot_be_cancelled(PhaseName.writers_after) as phase:
        vss_evidence.read_after(guest, attempt.found, attempt.vss, settle_s)
        if attempt.vss.after.unavailable:
            phase.warn(attempt.vss.after.unavailable)


def _may_go_on_without_freeze(attempt: Attempt) -> bool:
    if not attempt.will_freeze:
        return True
    window = attempt.window
    may_be_frozen = window.thaw.outcome is ThawOutcome.unanswered or window.freeze.outcome is FreezeOutcome.blocked
    return attempt.policy.mode is FreezeMode.preferred and not may_be_frozen


def _take_unfrozen(take: Callable[[], None], window: WindowRecord) -> None:
    window.snapshot_was_called = True
    window.instants.snapshot_sent = time.monotonic_ns()
    try:
        take()
    except StillpointError as error:
        window.snapshot_error = error.detail
    window.instants.snapshot_done = time.monotonic_ns()


def _look_at_disks(guest: Guest, planned: Sequence[Overlay]) -> dict[str, bool | None]:
    """Target to whether it is on its overlay now; None: on another file. The truth is in libvirt, not in the error of a call."""
    deadline = time.monotonic() + LOOK_PATIENCE_S
    while True:
        try:
            sources = guest.settled_sources()
            return {overlay.target: overlay.is_in_use(sources.get(overlay.target)) for overlay in planned}
        except LibvirtUnavailable as error:
            if time.monotonic() > deadline:
                raise MustRecover(what=error.detail) from error
        except StillpointError as error:
            raise MustRecover(what=error.detail) from error
        time.sleep(LOOK_PAUSE_S)


def _look_again(guest: Guest, attempt: Attempt, settings: SnapshotSettings) -> None:
    """A domain that was off is not held off: whoever was started between the look and the switch wrote to what should be the point."""
    assert attempt.selection is not None
    attempt.was_started = not guest.is_shut_off()
    attempt.written = image_users.writer_of(guest, at_rest.files_of(attempt.selection.taken), settings.guests_of_host)


def _phase_outcomes(window: WindowRecord) -> dict[PhaseName, tuple[PhaseOutcome, str | None]]:
    froze = window.freeze.outcome is FreezeOutcome.frozen
    thawed = window.thaw.outcome in (ThawOutcome.completed, ThawOutcome.not_needed) or not froze
    return {
        PhaseName.freeze: (PhaseOutcome.ok if froze else PhaseOutcome.failed, window.freeze.message),
        PhaseName.point_in_time: (PhaseOutcome.failed if window.snapshot_error else PhaseOutcome.ok, window.snapshot_error),
        PhaseName.thaw: (PhaseOutcome.ok if thawed else PhaseOutcome.warning, window.thaw.message),
    }
