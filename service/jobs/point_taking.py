"""Takes the point in time of a domain's disks: everything from the preflight to the look at the disks after the window.

The kinds `snapshot` and `backup` share it. What a kind adds it adds at the two places of `Additions`: both are before the freeze.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from service import bounded_io, log
from service.disks import at_rest, disk_images, image_users, images, overlays, rehearsal, two_views
from service.disks.disk_user import DiskUser, disk_user_of
from service.disks.two_views import DiskPositions
from service.errors import ChainTooDeep, DomainStateUnsuitable, GuestAlreadyFrozen, LibvirtUnavailable, OverlaysLeft, StillpointError
from service.freeze.frozen_pass import BEFORE_THE_WINDOW, FrozenPass, Look, PassSettings
from service.freeze.guard import Guard, Unguarded
from service.freeze.passed import Passed, Terms
from service.freeze.window import WindowGuard
from service.hypervisor.guest import Guest
from service.jobs.kind import Host
from service.jobs.point_outcome import Taken
from service.jobs.run import JobRun, MustRecover, Phase
from service.model.checks import why_not_freezable
from service.model.intent import Intent, Overlay
from service.model.inventory import DomainState, Survey
from service.model.lifecycle import PhaseName
from service.model.policy import FreezeMode, FreezePolicy
from service.model.requests import SnapshotRequest
from service.model.scope import DiskSelection, freeze_scope, select_disks
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, WindowRecord

LOOK_PATIENCE_S = 120.0
"""Seconds to wait for a libvirt that went away during the snapshot call. After that the job is left to recovery."""
LOOK_PAUSE_S = 0.5
"""Seconds between two tries to ask libvirt where the disks are."""

_logger = log.get(__name__)

TakePoint = Callable[[], None]


@dataclass(frozen=True)
class PointSettings:
    """`overlay_dir` None: each overlay is in its disk's folder. `max_chain_depth`: files below an active file with which no point is taken;
    None: as many as there are, because the overlay is merged back."""

    passes: PassSettings = field(default_factory=PassSettings)
    overlay_dir: Path | None = None
    overlay_reserve_bytes: int = 0
    max_chain_depth: int | None = None


class Additions:
    """What a kind does of its own before the guest is frozen. The kind `snapshot` does nothing there."""

    def decide(self, selection: DiskSelection, *, is_running: bool) -> None:
        """In the preflight, while programs in the guest are waited for. An error ends the job, and nothing is made yet."""

    def prepare(self, phase: Phase) -> None:
        """In the phase `prepare`, before the overlays are made."""

    def undo(self) -> None:
        """`prepare` was called, and the window does not follow. Raises nothing: an error is already on its way."""

    def window_begins(self) -> None:
        """Just before the freeze. Raises nothing."""

    def window_ended(self) -> None:
        """Just after the thaw. Raises nothing."""

    def intent(self, overlays: Sequence[Overlay]) -> Intent:
        """What recovery must know if the worker dies from here to the end of the window."""
        return Intent(overlays=overlays)


@dataclass(frozen=True)
class _Ready:
    """The result of the preflight. `fault`: why the guest cannot be frozen, in a job that continues without a freeze then."""

    terms: Terms
    selection: DiskSelection
    disk_user: DiskUser
    fault: StillpointError | None = None


class PointTaking:
    """One attempt of one job. An error before the window leaves no overlay."""

    def __init__(self, settings: PointSettings, run: JobRun, host: Host, guest: Guest, additions: Additions | None = None) -> None:
        self._settings = settings
        self._run = run
        self._host = host
        self._request = run.request(SnapshotRequest)
        self._guest = guest
        self._additions = additions or Additions()
        #: What libvirt must get back after the snapshot of a domain that is off.
        self._aside: dict[str, str] = {}

    def take(self) -> tuple[Passed, Taken]:
        """Every phase from the preflight to the look at the writers after the window, in order."""
        run, guest = self._run, self._guest
        with bounded_io.refusals(BEFORE_THE_WINDOW):
            with run.phase(PhaseName.preflight):
                ready = self._preflight(self._request.freeze)
            frozen = FrozenPass(run, guest, ready.terms, self._settings.passes)
            if ready.fault is not None:
                frozen.go_on_without_freeze(ready.fault)
            frozen.read_writers()
            guard = self._start_guard() if frozen.terms.will_freeze else Unguarded()
        with guard:
            with bounded_io.refusals(BEFORE_THE_WINDOW):
                planned, take = self._make_ready(frozen, ready, guard)
            self._additions.window_begins()
            passed = _pass(frozen, take, guard)
            self._additions.window_ended()
            self._put_checkpoints_back()
            taken = _look_at_disks(guest, planned) if passed.window.point_was_requested else Taken(planned, {})
            frozen.record(passed)
            if not ready.terms.is_running and taken.is_point:
                taken = self._look_again(ready, taken)
        frozen.read_writers_again(passed)
        return passed, taken

    def _start_guard(self) -> Guard | Unguarded:
        return self._host.guards.start_guard(self._run.claim.job_id, self._run.claim.guest_id, self._guest.name)

    # --- before the window ------------------------------------------------------------------------

    def _preflight(self, policy: FreezePolicy) -> _Ready:
        look = Look(self._run, self._guest, policy)
        try:
            selection, user = self._look_from_outside(look.survey)
        except BaseException:
            look.give_up()
            raise
        return self._judged(policy, look.finish(), selection, user)

    def _look_from_outside(self, survey: Survey) -> tuple[DiskSelection, DiskUser]:
        """All that needs nothing from inside the guest."""
        guest, folder = self._guest, self._settings.overlay_dir
        survey.disks = disk_images.examined(survey.disks)
        selection = select_disks(guest.name, survey.disks, self._request.disks, has_overlay_dir=folder is not None)
        self._must_not_be_too_deep(selection)
        user = disk_user_of(guest, survey.state)
        two_views.must_agree(guest.name, selection.taken, user)
        images.refuse_missing(guest.name, selection.taken, user)
        self._must_be_at_rest(selection)
        overlays.check_space(overlays.spaces(selection.taken, folder, self._settings.overlay_reserve_bytes))
        self._additions.decide(selection, is_running=survey.state is not DomainState.shut_off)
        return selection, user

    def _must_not_be_too_deep(self, selection: DiskSelection) -> None:
        limit = self._settings.max_chain_depth
        for disk in selection.taken if limit is not None else ():
            if limit is not None and disk.files_below >= limit:
                raise ChainTooDeep(domain=self._guest.name, disk=disk.target, depth=disk.files_below, limit=limit)

    def _judged(self, policy: FreezePolicy, survey: Survey, selection: DiskSelection, user: DiskUser) -> _Ready:
        """Whether the guest can be frozen, and what is frozen of it."""
        if survey.state is not DomainState.running or policy.mode is FreezeMode.off:
            outcome = FreezeOutcome.not_needed if survey.state is DomainState.shut_off else FreezeOutcome.not_requested
            return _Ready(Terms(policy, survey, selection, unfrozen=FreezeReply(outcome)), selection, user)
        policy.hold_limits(is_windows=survey.is_windows)
        terms = Terms(policy, survey, selection, freeze_scope(survey, selection.taken))
        fault = why_not_freezable(survey, terms.scope)
        # A guest that another client has frozen is refused in mode `preferred`, too.
        if fault is not None and (policy.mode is FreezeMode.required or isinstance(fault, GuestAlreadyFrozen)):
            raise fault
        return _Ready(terms, selection, user, fault)

    def _must_be_at_rest(self, selection: DiskSelection) -> None:
        fault = at_rest.why_not_at_rest(self._guest, selection.taken, self._host.guests)
        if fault is not None:
            raise fault

    def _make_ready(self, frozen: FrozenPass, ready: _Ready, guard: Guard | Unguarded) -> tuple[list[Overlay], TakePoint]:
        """Make everything that the window needs. Returns the overlays and the call that takes the point. On an error no overlay is left."""
        made: list[Overlay] = []
        try:
            with self._run.phase(PhaseName.prepare) as phase:
                frozen.begin_flush()
                self._additions.prepare(phase)
                made = self._make_overlays(ready.selection)
                rehearsal.must_work(self._guest, ready.disk_user, made)
                frozen.end_flush(phase)
                guard.wait_until_ready()
            if not ready.terms.is_running:
                self._must_still_be_off(ready.selection)
                self._set_checkpoints_aside(made)
            overlays.must_be_there(made)
            take = self._guest.prepare_snapshot({overlay.target: overlay.path for overlay in made})
            frozen.announce(self._intent(made))
        except BaseException as error:
            self._put_checkpoints_back()
            self._remove_again(made, error)
            self._additions.undo()
            raise
        return made, take

    def _make_overlays(self, selection: DiskSelection) -> list[Overlay]:
        claim = self._run.claim
        planned = overlays.plan(self._guest, selection.taken, claim.job_id, claim.attempt, self._settings.overlay_dir)
        overlays.refuse_existing(planned)
        # Before the first file is made, so that recovery knows which files are ours if this worker dies.
        self._run.write({"intent": self._intent(planned).as_document()})
        made = overlays.create(planned)
        # With their identities, because other files may have taken their names when recovery looks.
        self._run.write({"intent": self._intent(made).as_document()})
        return made

    def _must_still_be_off(self, selection: DiskSelection) -> None:
        """Making the overlays took a while, and libvirt does not prevent a start of the domain, or of another domain on the same files."""
        if not self._guest.is_shut_off():
            raise DomainStateUnsuitable(domain=self._guest.name, state="being started while the point was prepared")
        self._must_be_at_rest(selection)

    def _intent(self, made: Sequence[Overlay]) -> Intent:
        return replace(self._additions.intent(made), aside=self._aside)

    def _set_checkpoints_aside(self, made: Sequence[Overlay]) -> None:
        self._aside = self._guest.checkpoints.of_ours()
        if self._aside:
            self._run.write({"intent": self._intent(made).as_document()})
            self._guest.checkpoints.set_aside()

    def _put_checkpoints_back(self) -> None:
        """Without its record a checkpoint counts for nothing: the next backup is full then. The job itself does not fail by that."""
        try:
            self._guest.checkpoints.put_back(self._aside)
        except StillpointError as error:
            _logger.warning("checkpoints_lost", domain=self._guest.name, names=list(self._aside), reason=error.detail)

    def _remove_again(self, made: Sequence[Overlay], why: BaseException) -> None:
        """Remove the overlays. `why` stays the error of the job. A file that cannot be removed becomes a warning of phase `evaluate`."""
        try:
            overlays.remove(made)
        except OverlaysLeft as left:
            facts = left.facts
            _logger.error("overlays_left", job_id=self._run.claim.job_id, paths=facts["paths"], reason=facts["reason"], after=str(why))
            with self._run.phase_that_cannot_be_cancelled(PhaseName.evaluate) as phase:
                phase.warn(left.detail)

    # --- after the window -------------------------------------------------------------------------

    def _look_again(self, ready: _Ready, taken: Taken) -> Taken:
        """Check again: a domain that was shut off may have been started before its disks were switched, and have written to the point."""
        was_started = not self._guest.is_shut_off()
        written = image_users.writer_of(self._guest, at_rest.files_of(ready.selection.taken), self._host.guests)
        return replace(taken, was_started=was_started, written=written)


def _pass(frozen: FrozenPass, take: TakePoint, guard: WindowGuard) -> Passed:
    """Run the window if the job freezes. Take the point without a freeze if the window did not take it, and the request allows that."""
    passed = frozen.window(lambda _hold: take(), guard) if frozen.terms.will_freeze else frozen.without_window()
    if not passed.window.point_was_requested and _may_go_on_without_freeze(passed):
        _take_unfrozen(take, passed.window)
    return passed


def _may_go_on_without_freeze(passed: Passed) -> bool:
    if not passed.terms.will_freeze:
        return True
    may_be_frozen = passed.window.thaw.outcome is ThawOutcome.unanswered or passed.window.freeze.outcome is FreezeOutcome.blocked
    return passed.terms.policy.mode is FreezeMode.preferred and not may_be_frozen


def _take_unfrozen(take: TakePoint, window: WindowRecord) -> None:
    window.point_was_requested = True
    window.instants.point_sent = time.monotonic_ns()
    try:
        take()
    except StillpointError as error:
        window.point_error = error.detail
    window.instants.point_done = time.monotonic_ns()


def _look_at_disks(guest: Guest, planned: Sequence[Overlay]) -> Taken:
    """Ask libvirt and QEMU where the disks are: a snapshot call that failed may have switched them."""
    deadline = time.monotonic() + LOOK_PATIENCE_S
    while True:
        try:
            sources, positions = guest.settled_sources(), DiskPositions(guest)
            switched = {overlay.target: positions.is_on(overlay, sources.get(overlay.target)) for overlay in planned}
            return Taken(planned, switched, behind=positions.behind)
        except LibvirtUnavailable as error:
            if time.monotonic() > deadline:
                raise MustRecover(what=error.detail) from error
        except StillpointError as error:
            raise MustRecover(what=error.detail) from error
        time.sleep(LOOK_PAUSE_S)
