"""The disks of a job whose worker died, held against what it had intended: kept, rolled back, or left for a person to judge."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service import bounded_io
from service.db.tables import Job, RecoveryPoint
from service.disks import overlays
from service.disks.merging import merge_back
from service.disks.overlays import Overlay
from service.disks.whereabouts import Whereabouts
from service.errors import (
    DisksInDoubt,
    DomainBusy,
    LibvirtCallTimedOut,
    OverlaysLeft,
    StillpointError,
    StorageNotAnswering,
    WorkerLost,
)
from service.hypervisor.guest import Guest
from service.jobs.intent import Intent
from service.jobs.shortfall import removed_again, unfinished
from service.jobs.snapshot_outcome import disk_document
from service.model.lifecycle import PhaseName
from service.model.verdict import Verdict


@dataclass
class Found:
    """What recovery saw and did. `error` ends the job; None puts it back into the queue."""

    story: list[str] = field(default_factory=list)
    error: StillpointError | None = None
    point: RecoveryPoint | None = None
    #: The point had been judged and was taken back: the verdict that stands in the row is the true one.
    was_discarded: bool = False
    #: It went to another host, perhaps frozen: a thaw follows it there.
    moved_frozen: bool = False

    def lost(self) -> WorkerLost:
        return WorkerLost(story=" ".join(self.story).rstrip("."))


def what_may_move_them(guest: Guest, intent: Intent) -> StillpointError | None:
    """What has to end before the disks are judged: libvirtd executes a snapshot to its end after the worker that asked for it died."""
    if not intent.overlays or guest.is_shut_off():
        return None
    try:
        is_running = guest.running_libvirt_job() != 0
    except (DomainBusy, LibvirtCallTimedOut) as error:
        # While libvirt takes a snapshot of disks, it lets nobody ask for its progress.
        return error
    what = "libvirt runs a job on it, perhaps the snapshot that the worker had asked for"
    return DomainBusy(domain=guest.name, what=what) if is_running else None


def settle(job: Job, guest: Guest, intent: Intent, found: Found) -> None:
    """All on their overlays: the point exists. None: the overlays are removed. Anything else: nothing is touched.

    Raises LibvirtUnavailable: then nothing is decided.
    """
    if intent.discard is not None:
        _finish_discard(guest, intent, found)
        return
    where = Whereabouts.of(guest, intent.overlays)
    if where.is_untouched:
        found.story.append(_roll_back(intent.overlays))
    elif where.is_switched:
        _keep(job, guest, intent.overlays, where, found)
    else:
        _leave(guest, where, found)


def _roll_back(planned: Sequence[Overlay]) -> str:
    if not planned:
        return "Nothing was made yet."
    try:
        overlays.remove(planned)
    except OverlaysLeft as error:
        return f"The disks are as they were. {error.detail}"
    return "The disks are as they were; overlays that were made are removed."


def _keep(job: Job, guest: Guest, planned: Sequence[Overlay], where: Whereabouts, found: Found) -> None:
    mirrors = {target: guest.mirror(target) for target in where.planned}
    merging = [overlay.target for overlay in planned if (mirror := mirrors[overlay.target]) and mirror.into == overlay.base]
    if merging:
        found.story.append(
            f"The disks are on their overlays, and somebody merges {', '.join(merging)} back. The files below are written to, "
            "so they are not a recovery point."
        )
    else:
        found.story.append("The disks are on their overlays: the point in time was taken, and is kept as crash-consistent.")
        found.point = _point(job, planned)
    if where.saved != where.planned:
        behind = [target for target in where.planned if target not in where.saved]
        found.story.append(
            f"The definition of the next start does not name the overlay of {', '.join(behind)}: "
            "correct it before the domain is shut off, or what was written since is lost."
        )
    found.error = found.lost()


def _leave(guest: Guest, where: Whereabouts, found: Found) -> None:
    switched = sorted({*where.live, *where.saved})
    found.story.append("Not every disk is on its overlay or on the file below it; nothing was deleted.")
    ahead = [target for target in where.saved if target not in where.live]
    if ahead:
        found.story.append(
            f"Only the definition of the next start names the overlay of {', '.join(ahead)}: correct it before the domain is shut off."
        )
    unswitched = ", ".join(target for target in where.planned if target not in switched)
    found.error = DisksInDoubt(domain=guest.name, switched=", ".join(switched), unswitched=unswitched)


def _finish_discard(guest: Guest, intent: Intent, found: Found) -> None:
    """No point is recorded, whatever comes of it: the files below may have been written to."""
    assert intent.discard is not None
    found.was_discarded = True
    found.story.append("The point was being taken back.")
    merge = merge_back(guest, intent.overlays, was_begun=True)
    if merge.errors:
        found.story.append(f"That could not be finished for {', '.join(merge.errors)}: {merge.message}. Nothing in use was deleted.")
        found.error = unfinished(guest, intent, merge)
    else:
        found.story.append("That was finished: the disks are on the files that they were on before the job.")
        found.error = removed_again(intent.discard.verdict, intent.discard.required, merge)


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
    # libvirt wrote nothing into the base since; its last change is the nearest thing to the instant that is left.
    changed = [moment for overlay in planned if (moment := _changed_at(overlay.base)) is not None]
    return datetime.fromtimestamp(max(changed), UTC) if changed else job.updated_at


def _changed_at(path: str) -> float | None:
    try:
        return bounded_io.answered("looking at", path, Path(path).stat).st_mtime
    except (OSError, StorageNotAnswering):
        return None
