"""The job kind `preflight`: would a backup work, and with what verdict. Nothing is frozen and nothing is made."""

from service.errors import StillpointError
from service.hypervisor.guest import Guest
from service.jobs import overlays
from service.jobs.run import JobRun
from service.jobs.snapshot import SnapshotSettings, freeze_policy
from service.jobs.survey import as_document as survey_document
from service.jobs.survey import survey
from service.model.checks import Circumstances, evaluate
from service.model.inventory import DomainState
from service.model.lifecycle import JobState, PhaseName
from service.model.scope import freeze_scope, select_disks


def run_preflight(run: JobRun, guest: Guest, settings: SnapshotSettings, max_chain_depth: int) -> None:
    """Read everything, judge it, finish the job; `result` holds the checks."""
    with run.phase(PhaseName.preflight):
        found = survey(guest)
        selection, fault, spaces = None, None, []
        try:
            selection = select_disks(
                guest.name, found.disks, run.claim.request.get("disks"), has_overlay_dir=settings.overlay_dir is not None
            )
            spaces = overlays.spaces(selection.taken, settings.overlay_dir, settings.overlay_reserve_bytes)
        except StillpointError as error:
            fault = error
        scope = freeze_scope(found, selection.taken) if selection and found.state is DomainState.running and found.agent.answers else None
        mode = freeze_policy(run).mode
        result = evaluate(Circumstances(found, selection if fault is None else None, fault, scope, spaces, mode, max_chain_depth))
    run.finish(JobState.succeeded, {"phase": None, "result": result.as_document(), "evidence": {"survey": survey_document(found)}})
