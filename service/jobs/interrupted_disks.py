"""Compares the disks of a job whose worker died with the job's intent. The point is kept, rolled back, or left for a person to judge."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service import bounded_io, log
from service.db.tables import Job, RecoveryPoint
from service.disks import overlays, two_views
from service.disks.merging import merge_back
from service.disks.whereabouts import Whereabouts
from service.errors import (
    DisksInDoubt,
    DomainBusy,
    LibvirtCallFailed,
    LibvirtCallTimedOut,
    OverlaysLeft,
    StillpointError,
    StorageNotAnswering,
)
from service.hypervisor.guest import Guest
from service.jobs.kind import LostJob, Resolution
from service.jobs.shortfall import removed_again, unfinished
from service.jobs.snapshot_outcome import disk_document
from service.model import story
from service.model.intent import DiscardIntent, Intent, Overlay
from service.model.lifecycle import PhaseName
from service.model.reasons import lowers
from service.model.verdict import Judgement, Verdict, disks_in_doubt, no_point

_logger = log.get(__name__)


def what_may_move_disks(guest: Guest, intent: Intent) -> StillpointError | None:
    """What must end before the disks can be judged: libvirtd completes a snapshot even if the worker that asked for it has died."""
    if not intent.overlays or guest.is_shut_off():
        return None
    try:
        is_running = guest.running_libvirt_job() != 0
    except (DomainBusy, LibvirtCallTimedOut) as error:
        # While libvirt takes a snapshot of disks, it does not answer questions about its progress.
        return error
    what = "libvirt runs a job on the domain, perhaps the snapshot that the worker had asked for"
    return DomainBusy(domain=guest.name, what=what) if is_running else None


def settle(lost: LostJob, guest: Guest) -> Resolution:
    """Decide by the disks.

    - All disks are on their overlays: the point exists.
    - No disk is on its overlay: the overlays are removed.
    - Otherwise nothing is touched.

    Raises LibvirtUnavailable: then nothing is decided.
    """
    put_checkpoints_back(lost.intent, guest)
    if lost.intent.discard is not None:
        return _finish_discard(lost, lost.intent.discard, guest)
    where = Whereabouts.of(guest, lost.intent.overlays)
    if where.is_untouched:
        lost.story.append(_roll_back(lost.intent.overlays))
        return Resolution(is_tried_again=True, judgement=no_point())
    if where.is_switched:
        return _keep(lost, guest, where)
    return _leave(lost, guest, where)


def put_checkpoints_back(intent: Intent, guest: Guest) -> None:
    """The worker died between the moment when it set them aside and the moment when it gave them back."""
    if not intent.aside:
        return
    try:
        guest.checkpoints.put_back(intent.aside)
    except LibvirtCallFailed as error:
        _logger.warning("checkpoints_lost", domain=guest.name, names=list(intent.aside), reason=error.detail)


def _roll_back(planned: Sequence[Overlay]) -> str:
    if not planned:
        return story.NOTHING_MADE
    try:
        overlays.remove(planned)
    except OverlaysLeft as error:
        return f"{story.AS_THEY_WERE} {error.detail}"
    return story.ROLLED_BACK


def _keep(lost: LostJob, guest: Guest, where: Whereabouts) -> Resolution:
    planned, is_point = lost.intent.overlays, True
    mirrors = {target: guest.mirror(target) for target in where.planned}
    merging = [overlay.target for overlay in planned if (mirror := mirrors[overlay.target]) and mirror.into == overlay.base]
    if merging:
        is_point = False
        lost.story.append(story.MERGED_BY_ANOTHER.format(disks=", ".join(merging)))
    else:
        lost.story.append(story.POINT_KEPT)
    if where.saved != where.planned:
        behind = [target for target in where.planned if target not in where.saved]
        lost.story.append(story.DEFINITION_BEHIND.format(disks=", ".join(behind)))
    error = two_views.error_of(guest, where.behind) if where.behind else None
    if error is not None:
        lost.story.append(error.detail)
    if not is_point:
        return Resolution(error=error, judgement=no_point())
    return Resolution(error=error, judgement=_worker_lost(lost.job), point=_point(lost.job, planned))


def _worker_lost(job: Job) -> Judgement:
    return Judgement(Verdict.crash, [lowers("worker_lost", story.NOT_JUDGED if job.timing is not None else story.NOT_RECORDED)])


def _leave(lost: LostJob, guest: Guest, where: Whereabouts) -> Resolution:
    switched = sorted({*where.live, *where.saved})
    lost.story.append(story.IN_DOUBT)
    ahead = [target for target in where.saved if target not in where.live]
    if ahead:
        lost.story.append(story.DEFINITION_AHEAD.format(disks=", ".join(ahead)))
    unswitched = ", ".join(target for target in where.planned if target not in switched)
    error = DisksInDoubt(domain=guest.name, switched=", ".join(switched), unswitched=unswitched)
    return Resolution(error=error, judgement=disks_in_doubt())


def _finish_discard(lost: LostJob, discard: DiscardIntent, guest: Guest) -> Resolution:
    """Complete the discard. No point is recorded in any case, because a merge may have written to the files below.

    The verdict in the job's row is true.
    """
    lost.story.append(story.DISCARD_BEGUN)
    merge = merge_back(guest, lost.intent.overlays, was_begun=True)
    if merge.errors:
        lost.story.append(story.DISCARD_UNFINISHED.format(disks=", ".join(merge.errors), why=merge.message))
        return Resolution(error=unfinished(guest, discard, merge))
    lost.story.append(story.DISCARD_FINISHED)
    return Resolution(error=removed_again(discard, merge), was_rolled_back=True)


def _point(job: Job, planned: Sequence[Overlay]) -> RecoveryPoint:
    return RecoveryPoint(
        id=str(uuid.uuid4()),
        job_id=job.id,
        kind=job.kind,
        domain_id=job.domain_id,
        domain_name=job.domain_name,
        host_id=job.host_id,
        created_at=datetime.now(UTC),
        point_in_time_at=_instant(job, planned),
        verdict=Verdict.crash.value,
        labels=job.labels,
        disks=[disk_document(overlay) for overlay in planned],
    )


def _instant(job: Job, planned: Sequence[Overlay]) -> datetime:
    if job.timing is not None:
        # The window was recorded before the worker died.
        for phase in reversed(job.phases):
            if phase["name"] == PhaseName.point_in_time and phase["duration_ms"] is not None:
                return datetime.fromisoformat(phase["started_at"]) + timedelta(milliseconds=phase["duration_ms"])
    # QEMU has not written to the base since the point. The last change of the base is the best estimate of the instant.
    changed = [seconds for overlay in planned if (seconds := _changed_at(overlay.base)) is not None]
    return datetime.fromtimestamp(max(changed), UTC) if changed else job.updated_at


def _changed_at(path: str) -> float | None:
    try:
        return bounded_io.call("looking at", path, Path(path).stat).st_mtime
    except (OSError, StorageNotAnswering):
        return None
