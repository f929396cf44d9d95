"""Points in time, and how jobs end without one."""

from enum import StrEnum

from service.errors.base import StillpointError


class DiscardFailed(StillpointError):
    code = "discard_failed"
    title = "The recovery point is worse than required, and could not be removed"
    detail_template = "The verdict is {verdict}; {required} was required. Merging the overlays back failed: {message}."
    remedy_template = (
        "The recovery point is kept with its true verdict. `virsh blockjob {domain} DISK` shows a merge that still runs. "
        "`virsh blockcommit {domain} DISK --active --pivot` merges a disk by hand."
    )


class DiscardUnfinished(StillpointError):
    code = "discard_unfinished"
    title = "The removal of the recovery point was begun and could not be finished"
    detail_template = (
        "The verdict is {verdict}; {required} was required, so the recovery point was to be removed. "
        "Disks that were merged back: {merged}. Disks that were not: {unmerged}. {message}."
    )
    remedy_template = (
        "No data is lost: the domain still uses the files that its disks are on, and no file in use was deleted. The job has no recovery "
        "point, because the files below the overlays have changed. While the domain runs, `virsh blockjob {domain} DISK` shows a merge "
        "that still runs, and `virsh blockcommit {domain} DISK --active --pivot` merges a disk by hand."
    )


class SpaceInsufficient(StillpointError):
    code = "space_insufficient"
    title = "The space for the overlays is too small"
    detail_template = "{path} has {free_bytes} bytes free; {needed_bytes} are needed."
    remedy_template = "Free space in the folder, or set STILLPOINT_OVERLAY_DIR to a folder with enough space."


class SnapshotFailed(StillpointError):
    code = "snapshot_failed"
    title = "libvirt could not take the snapshot"
    detail_template = "{domain}: {message}. The disks were read afterwards: {disks_state}."
    remedy_template = "The disks of the domain are as they were before. Read the message and retry the job."


class DisksInDoubt(StillpointError):
    code = "disks_in_doubt"
    title = "Some disks were switched to their overlays and some were not"
    detail_template = "{domain}: disks on their overlay: {switched}. Disks that are not: {unswitched}."
    remedy_template = (
        "Nothing was deleted. For each switched disk, `virsh blockcommit {domain} DISK --active --pivot` "
        "merges the overlay back into the file below."
    )


class PointFate(StrEnum):
    """What became of a point that falls short."""

    kept = "kept"
    removed = "removed"
    with_the_caller = "with_the_caller"


_FATES = {
    PointFate.kept: "is kept with its true verdict",
    PointFate.removed: "was removed again, as the job asks for",
    PointFate.with_the_caller: "is what the caller has copied",
}


class VerdictBelowRequired(StillpointError):
    code = "verdict_below_required"
    title = "The recovery point is worse than required"
    detail_template = "The verdict is {verdict}; {required} was required. The recovery point {kept}."
    remedy_template = "GET /api/v1/jobs/{{id}}/explain says what lowered the verdict and what would lift the verdict."

    def __init__(self, *, verdict: str, required: str, point: PointFate, left: str = "") -> None:
        """`left`: sentences about files that could not be removed with the point."""
        super().__init__(verdict=verdict, required=required, point=point.value, kept=_FATES[point] + left)


class WorkerLost(StillpointError):
    code = "worker_lost"
    title = "The worker did not finish the job"
    detail_template = "{story}."
    remedy_template = "Retry the job. The evidence of the job says what recovery saw and did."


class KindUnknown(StillpointError):
    code = "kind_unknown"
    title = "The job was made by a newer version"
    detail_template = "This worker does not know jobs of kind {kind}: the guest is thawed, and its disks are left as they are."
    remedy_template = "Run the newer version on this host again; its worker ends the job."


class VersionUnknown(StillpointError):
    """`what`: `request` or `intent`."""

    code = "version_unknown"
    title = "The job was written by a newer version"
    detail_template = "The {what} of the job has version {version}; this program reads versions up to {known}."
    remedy_template = "Run the newer version on this host again; its worker continues the job."


class RecordUnreadable(StillpointError):
    """`what`: `request` or `intent`."""

    code = "record_unreadable"
    title = "What is on record of the job cannot be read"
    detail_template = "The {what} of the job makes no sense: {reason}."
    remedy_template = (
        "Run the version of this program that wrote the job. If that is the version that runs now, something else changed the row: "
        "cancel the job, and create a new job."
    )


class HostForgotten(StillpointError):
    """`phase` None: the job had not begun. `files`: overlays that it may have made."""

    code = "host_forgotten"
    title = "The host of the job never came back"

    @property
    def detail(self) -> str:
        facts = self.facts
        if facts["phase"] is None:
            return f"Host {facts['host']} was forgotten before the job began."
        sentences = [
            f"Host {facts['host']} was forgotten while the job was in phase {facts['phase']}.",
            "The guest and its disks were not looked at.",
        ]
        if facts["may_be_frozen"]:
            sentences.append("The guest may have been frozen.")
        if facts["files"]:
            sentences.append(f"The disks of the guest may be on these files: {', '.join(facts['files'])}.")
        return " ".join(sentences)

    @property
    def remedy(self) -> str:
        if self.facts["phase"] is None:
            return "Retry the job. The new job runs on the host that has the domain now."
        return (
            "On the host that has the domain now, read `virsh domblklist DOMAIN --details` and delete none of the files there. Then retry "
            "the job. If the forgotten host comes back, its worker thaws the guest and adds to this job what the worker sees."
        )


class JobCancelled(StillpointError):
    code = "job_cancelled"
    title = "The job was cancelled"
    detail_template = "The job was cancelled at the safe point before {phase}."
    remedy_template = "Retry the job if you still need a result."


class LeaseLost(StillpointError):
    code = "lease_lost"
    title = "This worker no longer owns the job"
    detail_template = "Another worker holds the lease of job {job_id}."
    remedy_template = "You need not do anything: recovery records the outcome."
