"""Repositories, the points in them, and what a backup, a restore or a verify meets there.

A repository that passes (not answering, full, gone) is told apart from a repository or a point that is bad.
"""

from service.errors.base import StillpointError


class RepositoryNotAnswering(StillpointError):
    """The storage of the repository hangs. Facts: `path`, `step`, `silent_s`."""

    code = "repository_not_answering"
    title = "The storage of the repository does not answer"
    detail_template = "{path}: nothing came for {silent_s:.0f} s ({step})."
    remedy_template = (
        "Look at the mount of {path} (`findmnt --target {path}`) and at the server behind it. The guest is not affected. "
        "A backup whose point was taken continues when the storage answers again."
    )


class RepositoryFull(StillpointError):
    """Facts: `path`, `needed_bytes` and `free_bytes`, which are None where they are not known."""

    code = "repository_full"
    title = "The repository is full"
    detail_template = "{path} has no space left (free: {free_bytes} bytes, needed: {needed_bytes} bytes)."
    remedy_template = "Free space there (`df -h {path}`), or remove points that are not needed. Then retry the job."


class RepositoryReadOnly(StillpointError):
    code = "repository_read_only"
    title = "The repository cannot be written"
    detail_template = "{path}: {reason}."
    remedy_template = "Give the service's user write access to {path}, or mount the filesystem for writing (`findmnt --target {path}`)."


class RepositoryGone(StillpointError):
    """The folder is not there: the share is not mounted, or the folder was moved."""

    code = "repository_gone"
    title = "The repository is not at its path"
    detail_template = "{path}: {reason}."
    remedy_template = "Mount the share of {path}, or correct the path of the repository. Nothing was changed."


class RepositoryBad(StillpointError):
    """The folder is there, and it is not the repository that it should be."""

    code = "repository_bad"
    title = "The folder is not this repository"
    detail_template = "{path}: {reason}."
    remedy_template = "Look at {path} and its repository.json. Nothing was changed there."


class RepositoryRefused(StillpointError):
    """The system refuses an operation in the repository for another reason. Facts: `path`, `what`, `reason`."""

    code = "repository_refused"
    title = "The system refuses a file of the repository"
    detail_template = "{what} {path} failed: {reason}."
    remedy_template = "Solve the problem with {path} that the reason names. `dmesg` may say more. Then retry the job."


class RepositoryUnusable(StillpointError):
    """The hand, the process that touches repositories, died or cannot be started. Facts: `path`, `step`, `reason`."""

    code = "repository_process_failed"
    title = "The process that works in the repository failed"
    detail_template = "{step} in {path}: {reason}."
    remedy_template = "Nothing was published. Look at the log of the worker, and retry the job."


class ForeignEntry(StillpointError):
    """A symbolic link, a device or another thing that the service did not make stands where a file of a point should be."""

    code = "repository_foreign_entry"
    title = "Something in the repository was not made by the service"
    detail_template = "{path}: {reason}."
    remedy_template = (
        "Remove it, or move it away. The service follows no symbolic link inside a repository, and deletes nothing that it did not make."
    )


class PointDamaged(StillpointError):
    """Facts: `point`, `path`, `reason`, `next_good`: a point that is known to be good, or None."""

    code = "point_damaged"
    title = "The recovery point is damaged"
    detail_template = "{path} of point {point}: {reason}. The next good point: {next_good}."
    remedy_template = (
        "Restore {next_good}. The damaged point was not touched; `stillpoint evidence verify` of its folder shows every difference."
    )


class PointUnsigned(StillpointError):
    """The manifest of the point, or of a point below it, is not signed, or not any more. Facts: `point`, `folder`, `next_good`."""

    code = "point_unsigned"
    title = "Nobody has signed the point"
    detail_template = "{folder}: the manifest of point {point}, or of a point that it needs, has no signature. It may be made by anybody."
    remedy_template = (
        "Put manifest.sig back and verify again, or restore {next_good}. Say `accept_unsigned` only if you know where the point comes from."
    )


class RestoredPointDamaged(StillpointError):
    """An instant restore relied on a proof, and the read after the start found damage. Facts: `domain`, `point`, `why`, `next_good`."""

    code = "restored_point_damaged"
    title = "A domain was started on a point that is damaged"
    detail_template = "{domain} runs on point {point}, which was whole when it was read before. Now: {why}"
    remedy_template = (
        "{domain} may read wrong data: do not trust it. Its own writes are in its new disks. Save what you need, shut it off, and restore "
        "{next_good}."
    )


class PointNotSealed(StillpointError):
    """The point is the files below the overlays of the guest's disks: there is nothing in a repository. Facts: `point`."""

    code = "point_not_sealed"
    title = "The recovery point is not in a repository"
    detail_template = "Point {point} is the files below the overlays of the guest's disks. No repository has it."
    remedy_template = "Name a point that a backup has left in a repository: GET /api/v1/recovery-points?state=sealed."


class PointIncomplete(StillpointError):
    """A point from which this one inherits is not there. Facts: `point`, `missing`, `next_good`."""

    code = "point_incomplete"
    title = "A point from which this one inherits is missing"
    detail_template = "Point {point} needs point {missing}, which is not in the repository. The next good point: {next_good}."
    remedy_template = "Put the folder of point {missing} back, or restore {next_good}."


class KeyUnusable(StillpointError):
    """The key of an encrypted repository cannot be had, or is wrong. Facts: `key` (the reference, never the key), `reason`."""

    code = "key_unusable"
    title = "The key of the repository cannot be used"
    detail_template = "{key}: {reason}."
    remedy_template = "Correct the reference to the key of the repository, or what it names. Nothing was written."


class SignatureWrong(StillpointError):
    code = "signature_wrong"
    title = "The signature of the manifest is wrong"
    detail_template = "{path}: {reason}."
    remedy_template = "Do not trust this point: its manifest was changed after it was sealed, or was signed by another key."


class LevelImpossible(StillpointError):
    """An increment was asked for, and a disk can only be copied in full. Facts: `domain`, `disk`, `reason`."""

    code = "increment_impossible"
    title = "A disk cannot be backed up incrementally"
    detail_template = "{domain}'s disk {disk}: {reason}."
    remedy_template = "Ask for the level `auto` or `full`. Nothing was frozen."


class CopyDiffers(StillpointError):
    """What was read back from the repository is not what the guest's disk held. Facts: `path`, `disk`, `block`, `blocks`."""

    code = "copy_differs"
    title = "The copy in the repository differs from the disk"
    detail_template = "{path}: {blocks} blocks of disk {disk} differ, the first is block {block}."
    remedy_template = "The point was not published. Check the storage of the repository and the memory of the host. Then retry the job."


class OverlaySpaceLow(StillpointError):
    """The guest writes faster than the copy ends. Facts: `folder`, `free_bytes`, `reserve_bytes`, and `merge_bytes` for the merge there."""

    code = "overlay_space_low"
    title = "The backup was ended before the guest could run out of space"
    detail_template = (
        "{folder} has {free_bytes} bytes left. The merge of the overlays may take {merge_bytes} there, and {reserve_bytes} are the reserve."
    )
    remedy_template = (
        "The overlays were merged back, and the guest runs. Give the folder more space, or take the backup when the guest writes less."
    )


class MergeWithoutSpace(StillpointError):
    """A merge would fill the filesystem of the disk. Facts: `target`, `folder`, `free_bytes`, `needed_bytes`."""

    code = "merge_without_space"
    title = "There is no space to merge an overlay back"
    detail_template = "{target} was not merged: {folder} has {free_bytes} bytes left, and the merge may take {needed_bytes} more"
    remedy_template = (
        "Give {folder} more space at once: the guest continues with its overlay, and QEMU pauses the guest if the overlay finds none."
    )


class GuestSuffers(StillpointError):
    """The guest's disks were slower than allowed although the copy had stopped to read. Facts: `domain`, `latency_ms`, `limit_ms`."""

    code = "impact_above_limit"
    title = "The backup was ended because the guest's disks became too slow"
    detail_template = "{domain}: a write or flush took {latency_ms} ms in the mean, and {limit_ms} ms are allowed."
    remedy_template = "Nothing was published. Take the backup at a quieter time, or raise `impact_limit_ms`."


class GuestPausedByError(StillpointError):
    """The domain paused with an I/O error during the copy. Facts: `domain`, `reason`, `resumed`."""

    code = "guest_paused_by_io_error"
    title = "The guest was paused by an I/O error during the backup"
    detail_template = "{domain}: {reason}. Resumed: {resumed}."
    remedy_template = "The backup was ended. If the domain is still paused, free space for its disks, then `virsh resume {domain}`."


class MergeUnfinished(StillpointError):
    """The point is sealed, and an overlay could not be merged back. Facts: `domain`, `disks`, `why`."""

    code = "merge_unfinished"
    title = "The point is sealed, but an overlay could not be merged back"
    detail_template = "{domain}, {disks}: {why}."
    remedy_template = "The guest runs on its overlays, and the point is good. The next backup of {domain} tries the merge again first."


class BackupNotUndone(StillpointError):
    """The backup was given up, and an overlay could not be merged back. Facts: `domain`, `disks`, `why`, `after`: what ended the backup."""

    code = "backup_not_undone"
    title = "The backup was given up, and an overlay could not be merged back"
    detail_template = "{domain}, {disks}: {why}. The backup had ended because: {after}"
    remedy_template = "The domain continues on its overlays, and nothing is lost. The next backup of {domain} tries the merge again first."


class PointMayBeSealed(StillpointError):
    """The repository went away while the point was published. Facts: `point`, `path`, `folder`, `after`: what the repository said last."""

    code = "point_may_be_sealed"
    title = "Whether the point is in the repository is not known"
    detail_template = "Point {point} may be in {path} under {folder}, or not: the answer was lost. {after}"
    remedy_template = (
        "Nothing: when the repository answers again, the worker looks for the point, puts it on the list, and says so in this job. "
        "`stillpoint repository import` finds it as well."
    )


class SourceWritten(StillpointError):
    """A file that is copied was written to after the point in time that it is. Facts: `path`."""

    code = "source_written"
    title = "The disk was written to while it was copied"
    detail_template = "Another program wrote to {path} after the point in time."
    remedy_template = "Nothing was published. Find out which program writes to {path}, and take the backup again."


class PointLost(StillpointError):
    """The disks left the point before it was copied: another client merged the overlays, or replaced files. Facts: `domain`, `reason`."""

    code = "point_lost_before_copied"
    title = "The point in time was gone before it was copied"
    detail_template = "{domain}: {reason}."
    remedy_template = "Nothing was published. Ask for the backup again, and let no other tool merge or move the disks while it runs."


class RestoreRefused(StillpointError):
    """Facts: `domain`, `reason`, `instead`: what the caller can do."""

    code = "restore_refused"
    title = "The point cannot be restored in this way"
    detail_template = "{domain}: {reason}."
    remedy_template = "{instead}"


class UsnRisk(StillpointError):
    code = "usn_rollback_risk"
    title = "A domain controller would not notice that it was restored"
    detail_template = "{domain} is a domain controller, and its definition has no <genid>: a restore rolls its update numbers back."
    remedy_template = (
        "Add <genid/> to the definition of {domain}, so that Windows notices the restore. "
        "Say `accept_usn_risk` only if this is the only domain controller, or if the restored guest stays isolated."
    )


class TargetFull(StillpointError):
    """Facts: `folder`, `needed_bytes`, `free_bytes`."""

    code = "restore_target_full"
    title = "The disks do not fit where they are to be written"
    detail_template = "{folder} has {free_bytes} bytes left, and {needed_bytes} are needed."
    remedy_template = "Free space there, or name another `folder`. Nothing was replaced, and partial files were removed."


class OutOfReachOfQemu(StillpointError):
    """An instant restore needs QEMU to read the repository. Facts: `path`, `reason`."""

    code = "repository_out_of_reach_of_qemu"
    title = "QEMU cannot read the repository"
    detail_template = "{path}: {reason}."
    remedy_template = "Give QEMU's user the right to pass the folders on the way (`namei -l {path}`), or restore with another mode."


class RestoredDomainFailed(StillpointError):
    """Facts: `domain`, `reason`, `state`: what is true now."""

    code = "restored_domain_failed"
    title = "The restored domain could not be brought up"
    detail_template = "{domain}: {reason}. {state}."
    remedy_template = "Correct what the reason says (the log of the domain is in /var/log/libvirt/qemu). Then restore again."


class RestoreUnfinished(StillpointError):
    """An instant restore whose domain still reads from the repository. Facts: `domain`, `disks`, `path`, `reason`."""

    code = "restore_unfinished"
    title = "The restored domain still reads from the repository"
    detail_template = "{domain}, {disks}: {reason}. Until these disks are whole, the domain needs {path}."
    remedy_template = (
        "Do not remove the point, and do not unmount {path}. Nothing that the guest wrote is lost. "
        "Complete each disk with `virsh blockpull {domain} DISK --wait` while the domain runs."
    )


class RestoreNotWrittenOut(StillpointError):
    """QEMU ended after it had dropped the repository from a disk, and before it had written out what it had copied.

    QEMU changes the header of an image before it writes its cached tables (seen with 7.2, killed within a second of the end of a pull).
    Facts: `domain`, `disks`, `path`.
    """

    code = "restore_not_written_out"
    title = "The restored domain was killed before its disk was written out"
    detail_template = "{domain}, {disks}: QEMU ended before everything that it had copied was on the disk, which may lack data now."
    remedy_template = "The point in {path} is good. Remove {domain} and its new disks, and restore the point again."
