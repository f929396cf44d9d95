"""Points in time, and how jobs end without one."""

from service.errors.base import StillpointError


class DiscardFailed(StillpointError):
    code = "discard_failed"
    title = "The point that fell short could not be removed"
    detail_template = "The verdict is {verdict}; {required} was required. Merging the overlays back failed: {message}."
    remedy_template = (
        "The recovery point is kept with its true verdict. `virsh blockjob {domain} DISK` shows what still runs; "
        "`virsh blockcommit {domain} DISK --active --pivot` merges by hand."
    )


class DiscardUnfinished(StillpointError):
    code = "discard_unfinished"
    title = "The point was being removed, and that could not be finished"
    detail_template = (
        "The verdict is {verdict}; {required} was required, so the point was to be removed. "
        "Back on their own file: {merged}; not: {unmerged}. {message}."
    )
    remedy_template = (
        "No data is lost: each disk goes on with the file that it is on, and nothing in use was deleted. There is no recovery point: "
        "the files below the overlays were written to. While the domain runs, `virsh blockjob {domain} DISK` shows what still runs, and "
        "`virsh blockcommit {domain} DISK --active --pivot` merges the rest."
    )


class SpaceInsufficient(StillpointError):
    code = "space_insufficient"
    title = "There is not enough space for the overlays"
    detail_template = "{path} has {free_bytes} bytes free; {needed_bytes} are needed."
    remedy_template = "Free space there, or set STILLPOINT_OVERLAY_DIR to a folder that has it."


class SnapshotFailed(StillpointError):
    code = "snapshot_failed"
    title = "libvirt could not take the snapshot"
    detail_template = "{domain}: {message}. The disks were read afterwards: {disks_state}."
    remedy_template = "The domain goes on with its disks as they were. Read the message and retry the job."


class DisksInDoubt(StillpointError):
    code = "disks_in_doubt"
    title = "Some disks were switched to their overlays and some were not"
    detail_template = "{domain}: on their overlay: {switched}; not: {unswitched}."
    remedy_template = (
        "Nothing was deleted. For each switched disk, `virsh blockcommit {domain} DISK --active --pivot` "
        "brings the data back into the file below."
    )


class VerdictBelowRequired(StillpointError):
    code = "verdict_below_required"
    title = "The recovery point is worse than what was required"
    detail_template = "The verdict is {verdict}; {required} was required. The recovery point {kept}."
    remedy_template = "GET /api/v1/jobs/{{id}}/explain says what lowered it and what would lift it."


class WorkerLost(StillpointError):
    code = "worker_lost"
    title = "The worker did not come to the end of the job"
    detail_template = "{story}."
    remedy_template = "Retry the job. What recovery found and did stands in the job's evidence."


class HostForgotten(StillpointError):
    """`phase` None: the job had not begun. `files`: overlays that it may have made."""

    code = "host_forgotten"
    title = "The host of the job never came back"

    @property
    def detail(self) -> str:
        facts = self.facts
        if facts["phase"] is None:
            return f"Host {facts['host']} was forgotten before the job began."
        told = [f"Host {facts['host']} was forgotten while the job was in phase {facts['phase']}; nobody looked at the guest or its disks."]
        if facts["may_be_frozen"]:
            told.append("The guest may have been frozen.")
        if facts["files"]:
            told.append(f"Its disks may be on these files: {', '.join(facts['files'])}.")
        return " ".join(told)

    @property
    def remedy(self) -> str:
        if self.facts["phase"] is None:
            return "Retry the job: it runs on the host that has the domain now."
        return (
            "Where the domain runs now, read `virsh domblklist DOMAIN --details` and delete none of its files. Then retry the job: it runs "
            "on the host that has the domain now. If the host comes back, its worker thaws the guest and adds to this job what it finds."
        )


class JobCancelled(StillpointError):
    code = "job_cancelled"
    title = "The job was cancelled"
    detail_template = "Cancelled at the safe point before {phase}."
    remedy_template = "Retry the job to run it again."


class LeaseLost(StillpointError):
    code = "lease_lost"
    title = "This worker no longer owns the job"
    detail_template = "The lease of job {job_id} is held by somebody else."
    remedy_template = "The outcome is recorded by recovery; nothing needs to be done."
