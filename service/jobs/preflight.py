"""The job kind `preflight`: tells whether a backup would work, and its best verdict. Nothing is frozen. Trial files are removed again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service import bounded_io
from service.disks import disk_images, images, overlays, rehearsal, two_views
from service.disks.at_rest import why_not_at_rest
from service.disks.disk_user import disk_user_of
from service.errors import (
    HoldLimitTooLong,
    HostOutOfDescriptors,
    OverlayPreparationFailed,
    OverlaysLeft,
    QemuImgUnusable,
    StillpointError,
    StorageNotAnswering,
    StorageRefused,
)
from service.freeze import windows_evidence
from service.freeze.frozen_pass import BEFORE_THE_WINDOW
from service.freeze.survey import as_document as survey_document
from service.freeze.survey import survey_of
from service.hypervisor.guest import Guest
from service.jobs import interrupted_disks
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun
from service.model.checks import Circumstances, evaluate
from service.model.host_trial import HostTrial, Tried
from service.model.intent import Intent
from service.model.inventory import Disk, DomainState, Survey
from service.model.lifecycle import PhaseName
from service.model.policy import FreezeMode, FreezePolicy
from service.model.requests import PreflightRequest
from service.model.scope import DiskSelection, freeze_scope, select_disks
from service.model.windows import auto_recovery
from service.model.windows.checks import WindowsCircumstances


@dataclass(frozen=True)
class Preflight:
    """The handler of the kind."""

    max_chain_depth: int
    overlay_dir: Path | None = None
    overlay_reserve_bytes: int = 0

    def run(self, run: JobRun, host: Host) -> Ending:
        return _run(run, host, self)

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        """A preflight takes no point. The overlays of its trial are removed."""
        return replace(interrupted_disks.settle(lost, lost.guest), judgement=None) if lost.guest is not None else Resolution()

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)


def _run(run: JobRun, host: Host, kind: Preflight) -> Ending:
    """Read all facts, try what can be tried, and judge. `result` holds the checks."""
    request, guest = run.request(PreflightRequest), host.guest(run.claim.guest_id)
    with bounded_io.refusals(BEFORE_THE_WINDOW), run.phase(PhaseName.preflight):
        survey = survey_of(guest)
        if survey.agent.frozen:
            survey.foreign_freeze = run.foreign_freeze()
        survey.disks = disk_images.examined(survey.disks)
        selection, fault, spaces, image_fault, trial = None, None, [], None, None
        try:
            selection = select_disks(guest.name, survey.disks, request.disks, has_overlay_dir=kind.overlay_dir is not None)
            trial = _try_host(run, guest, kind, survey, selection.taken)
            if Tried.image not in trial.faults:
                image_fault = why_not_at_rest(guest, selection.taken, host.guests)
                spaces = overlays.spaces(selection.taken, kind.overlay_dir, kind.overlay_reserve_bytes)
        except HostOutOfDescriptors:
            raise
        except (OverlayPreparationFailed, OverlaysLeft, StorageNotAnswering) as error:
            trial = trial or HostTrial()
            trial.note(Tried.overlay, error)
        except StillpointError as error:
            fault = error
        is_answering = survey.state is DomainState.running and survey.agent.answers
        scope = freeze_scope(survey, selection.taken) if selection and is_answering else None
        policy = request.freeze
        hold_fault = _hold_fault(policy, survey)
        can_ask = survey.is_windows and survey.agent.answers and not survey.agent.frozen
        windows = _windows(run, guest, survey, selection) if can_ask else None
        taken = selection if fault is None else None
        snapshots = tuple(guest.snapshot_names())
        result = evaluate(
            Circumstances(
                survey, taken, fault, scope, spaces, policy.mode, kind.max_chain_depth, windows, image_fault, snapshots, trial, hold_fault
            )
        )
    document = {**result.as_document(), "windows": windows.as_document() if windows else None}
    return Ending(evidence={"survey": survey_document(survey)}, result=document, is_undone=True)


def _hold_fault(policy: FreezePolicy, survey: Survey) -> StillpointError | None:
    """The fault that a snapshot would meet: only if the guest runs and a freeze is asked for."""
    if survey.state is not DomainState.running or policy.mode is FreezeMode.off:
        return None
    try:
        policy.hold_limits(is_windows=survey.is_windows)
    except HoldLimitTooLong as error:
        return error
    return None


def _try_host(run: JobRun, guest: Guest, kind: Preflight, survey: Survey, taken: Sequence[Disk]) -> HostTrial:
    """Make the overlays as a snapshot would, let libvirt look at them, open them as QEMU's user, and remove them."""
    trial = HostTrial()
    user = disk_user_of(guest, survey.state)
    trial.note(Tried.libvirt_behind_qemu, *two_views.faults(guest.name, taken, user))
    trial.note(Tried.image, *images.faults(guest.name, taken, user))
    if trial.faults:
        return trial
    try:
        planned = overlays.plan(guest, taken, run.claim.job_id, run.claim.attempt, kind.overlay_dir)
        overlays.refuse_existing(planned)
        # If this worker dies, recovery reads the intent and removes the overlays.
        run.write({"intent": Intent(will_freeze=False, overlays=planned).as_document()})
        planned = overlays.create(planned)
    except (OverlayPreparationFailed, QemuImgUnusable, StorageRefused, StorageNotAnswering) as error:
        trial.note(Tried.overlay, error)
        return trial
    try:
        rehearsal.rehearse(guest, user, planned, trial)
    finally:
        overlays.remove(planned)
    trial.note(Tried.overlay)
    return trial


def _windows(run: JobRun, guest: Guest, survey: Survey, selection: DiskSelection | None) -> WindowsCircumstances:
    evidence = windows_evidence.read_before(guest, survey)
    report = evidence.before.report
    return WindowsCircumstances(
        generation=evidence.generation,
        nt=evidence.nt,
        backup_type=auto_recovery.backup_type(evidence.generation, evidence.option),
        recovery=auto_recovery.derive(survey.agent.os, frozen_by_vss=True, writers=report.writers if report else (), is_windows=True),
        writers=report,
        writers_unavailable=evidence.before.unavailable,
        volumes=survey.filesystems,
        taken=frozenset(disk.target for disk in selection.taken) if selection else None,
        drift=run.remember(survey, evidence),
        build=(survey.agent.os or {}).get("kernel-release"),
        variant=(survey.agent.os or {}).get("variant-id"),
        drive_types=evidence.drive_types,
        removable=frozenset(disk.target for disk in survey.disks if disk.removable),
    )
