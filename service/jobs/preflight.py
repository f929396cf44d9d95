"""The job kind `preflight`: would a backup work, and with what verdict. Nothing is frozen; what is made to try is removed again."""

from collections.abc import Sequence

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
from service.hypervisor.guest import Guest
from service.jobs import disk_images, images, overlays, rehearsal, storage, vss_evidence
from service.jobs.at_rest import why_not_at_rest
from service.jobs.disk_user import disk_user_of
from service.jobs.intent import Intent
from service.jobs.run import JobRun
from service.jobs.snapshot import BEFORE_THE_WINDOW, SnapshotSettings, freeze_policy
from service.jobs.survey import as_document as survey_document
from service.jobs.survey import survey
from service.model import auto_recovery
from service.model.checks import Circumstances, evaluate
from service.model.checks_windows import WindowsCircumstances
from service.model.host_trial import HostTrial, Tried
from service.model.inventory import Disk, DomainState, Survey
from service.model.lifecycle import JobState, PhaseName
from service.model.policy import FreezeMode, FreezePolicy
from service.model.scope import DiskSelection, freeze_scope, select_disks


def run_preflight(run: JobRun, guest: Guest, settings: SnapshotSettings, max_chain_depth: int) -> None:
    """Read everything, try what can be tried, judge it, finish the job; `result` holds the checks."""
    with storage.refusals(BEFORE_THE_WINDOW), run.phase(PhaseName.preflight):
        found = survey(guest)
        if found.agent.frozen:
            found.foreign_freeze = run.foreign_freeze()
        found.disks = disk_images.examined(found.disks)
        selection, fault, spaces, image_fault, host = None, None, [], None, None
        try:
            selection = select_disks(
                guest.name, found.disks, run.claim.request.get("disks"), has_overlay_dir=settings.overlay_dir is not None
            )
            host = _try_host(run, guest, settings, found, selection.taken)
            if Tried.image not in host.faults:
                image_fault = why_not_at_rest(guest, selection.taken, settings.guests_of_host)
                spaces = overlays.spaces(selection.taken, settings.overlay_dir, settings.overlay_reserve_bytes)
        except HostOutOfDescriptors:
            raise
        except (OverlayPreparationFailed, OverlaysLeft, StorageNotAnswering) as error:
            host = host or HostTrial()
            host.note(Tried.overlay, error)
        except StillpointError as error:
            fault = error
        scope = freeze_scope(found, selection.taken) if selection and found.state is DomainState.running and found.agent.answers else None
        policy = freeze_policy(run)
        hold_fault = _hold_fault(policy, found)
        windows = _windows(run, guest, found, selection) if found.is_windows and found.agent.answers and not found.agent.frozen else None
        taken = selection if fault is None else None
        snapshots = tuple(guest.snapshot_names())
        result = evaluate(
            Circumstances(
                found, taken, fault, scope, spaces, policy.mode, max_chain_depth, windows, image_fault, snapshots, host, hold_fault
            )
        )
    document = {**result.as_document(), "windows": windows.as_document() if windows else None}
    run.finish(JobState.succeeded, {"phase": None, "intent": None, "result": document, "evidence": {"survey": survey_document(found)}})


def _hold_fault(policy: FreezePolicy, found: Survey) -> StillpointError | None:
    """As the job meets it: of a guest that runs, where a freeze is asked for."""
    if found.state is not DomainState.running or policy.mode is FreezeMode.off:
        return None
    try:
        policy.hold_limits(is_windows=found.is_windows)
    except HoldLimitTooLong as error:
        return error
    return None


def _try_host(run: JobRun, guest: Guest, settings: SnapshotSettings, found: Survey, taken: Sequence[Disk]) -> HostTrial:
    """Make the overlays as the job would, let libvirt look at them and QEMU's user open them, and remove them."""
    trial = HostTrial()
    user = disk_user_of(guest, found.state)
    trial.note(Tried.image, *images.faults(guest.name, taken, user))
    if Tried.image in trial.faults:
        return trial
    try:
        planned = overlays.plan(guest, taken, run.claim.job_id, run.claim.attempt, settings.overlay_dir)
        overlays.refuse_existing(planned)
        # Whoever finds this row after our death removes them.
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


def _windows(run: JobRun, guest: Guest, found: Survey, selection: DiskSelection | None) -> WindowsCircumstances:
    evidence = vss_evidence.read_before(guest, found)
    report = evidence.before.report
    return WindowsCircumstances(
        generation=evidence.generation,
        nt=evidence.nt,
        backup_type=auto_recovery.backup_type(evidence.generation, evidence.option),
        recovery=auto_recovery.derive(found.agent.os, frozen_by_vss=True, writers=report.writers if report else (), is_windows=True),
        writers=report,
        writers_unavailable=evidence.before.unavailable,
        volumes=found.filesystems,
        taken=frozenset(disk.target for disk in selection.taken) if selection else None,
        drift=run.remember(found, evidence),
        build=(found.agent.os or {}).get("kernel-release"),
        variant=(found.agent.os or {}).get("variant-id"),
        drive_types=evidence.drive_types,
        removable=frozenset(disk.target for disk in found.disks if disk.removable),
    )
