"""The job kind `preflight`: would a backup work, and with what verdict. Nothing is frozen and nothing is made."""

from service.errors import StillpointError
from service.hypervisor.guest import Guest
from service.jobs import disk_images, overlays, vss_evidence
from service.jobs.at_rest import why_not_at_rest
from service.jobs.run import JobRun
from service.jobs.snapshot import SnapshotSettings, freeze_policy
from service.jobs.survey import as_document as survey_document
from service.jobs.survey import survey
from service.model import auto_recovery
from service.model.checks import Circumstances, evaluate
from service.model.checks_windows import WindowsCircumstances
from service.model.inventory import DomainState, Survey
from service.model.lifecycle import JobState, PhaseName
from service.model.scope import DiskSelection, freeze_scope, select_disks


def run_preflight(run: JobRun, guest: Guest, settings: SnapshotSettings, max_chain_depth: int) -> None:
    """Read everything, judge it, finish the job; `result` holds the checks."""
    with run.phase(PhaseName.preflight):
        found = survey(guest)
        if found.agent.frozen:
            found.foreign_freeze = run.foreign_freeze()
        found.disks = disk_images.examined(found.disks)
        selection, fault, spaces, image_fault = None, None, [], None
        try:
            selection = select_disks(
                guest.name, found.disks, run.claim.request.get("disks"), has_overlay_dir=settings.overlay_dir is not None
            )
            image_fault = why_not_at_rest(guest, selection.taken, settings.guests_of_host)
            spaces = overlays.spaces(selection.taken, settings.overlay_dir, settings.overlay_reserve_bytes)
        except StillpointError as error:
            fault = error
        scope = freeze_scope(found, selection.taken) if selection and found.state is DomainState.running and found.agent.answers else None
        mode = freeze_policy(run).mode
        windows = _windows(run, guest, found, selection) if found.is_windows and found.agent.answers and not found.agent.frozen else None
        taken = selection if fault is None else None
        result = evaluate(
            Circumstances(found, taken, fault, scope, spaces, mode, max_chain_depth, windows, image_fault, tuple(guest.snapshot_names()))
        )
    document = {**result.as_document(), "windows": windows.as_document() if windows else None}
    run.finish(JobState.succeeded, {"phase": None, "result": document, "evidence": {"survey": survey_document(found)}})


def _windows(run: JobRun, guest: Guest, found: Survey, selection: DiskSelection | None) -> WindowsCircumstances:
    evidence = vss_evidence.read_before(guest, found)
    report = evidence.before.report
    return WindowsCircumstances(
        generation=evidence.generation,
        nt=evidence.nt,
        backup_type=auto_recovery.backup_type(evidence.generation, evidence.option),
        recovery=auto_recovery.derive(found.agent.os, frozen_by_vss=True, writers=report.writers if report else ()),
        writers=report,
        writers_unavailable=evidence.before.unavailable,
        volumes=found.filesystems,
        taken=frozenset(disk.target for disk in selection.taken) if selection else None,
        drift=run.remember(found, evidence),
        build=(found.agent.os or {}).get("kernel-release"),
        variant=(found.agent.os or {}).get("variant-id"),
    )
