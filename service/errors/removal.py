"""Why a point is not removed, or is not there to be used."""

from service.errors.base import StillpointError


class PointNeeded(StillpointError):
    """Facts: `point`, and `needed_by`: what stands on it. Points by their ids, or by their folders where only the repository knows them."""

    code = "point_needed"
    title = "Other points stand on this one"
    detail_template = "{point} is needed by {needed_by}: their increments begin where it ends."
    remedy_template = (
        "Say `merge`, and what they need of it moves into them before it goes. Or remove those first, or all of them at once: none of them "
        "can be restored without it."
    )


class PointPinned(StillpointError):
    code = "point_pinned"
    title = "The point is pinned"
    detail_template = "{point} is pinned, so nothing removes it."
    remedy_template = 'Unpin it first: PATCH /api/v1/recovery-points/{point} with {{"pinned": false}}.'


class PointInUse(StillpointError):
    """Facts: `point`, `jobs`: the ids of the jobs that read it, or that may build on it. `domains` that read it from the repository."""

    code = "point_in_use"
    title = "A job uses the point"
    detail_template = "{point} is used by jobs ({jobs}) or by domains that have its files below their disks ({domains})."
    remedy_template = (
        "Wait until the jobs have ended, or cancel them. A domain is independent of the point after `virsh blockpull DOMAIN DISK`. "
        "Nothing was changed."
    )


class PointLeaving(StillpointError):
    code = "point_leaving"
    title = "The point is being removed"
    detail_template = "{point} was given up, and its files are being removed."
    remedy_template = "Take another point: GET /api/v1/recovery-points lists them."


class PointBelowOverlay(StillpointError):
    """The point is the files below the disks of its domain, and was asked to be removed without a merge, or merged without an end."""

    code = "point_below_overlay"
    title = "The point is a part of the disks of its domain"
    detail_template = "{point} is the files below the overlays of the guest's disks. The guest needs them as long as they are there."
    remedy_template = (
        "Ask for a merge that removes the point: DELETE /api/v1/recovery-points/{point}?merge=true, or "
        "`stillpoint remove --merge {point}`. What was written after the point moves into its files, and the point is gone."
    )


class PointOffChain(StillpointError):
    """Facts: `point`, `domain`, `disk`, `file`: of the point, `chain`: the files of the disk now, the active one first."""

    code = "point_off_chain"
    title = "A disk does not stand on the point any more"
    detail_template = "{domain}, {disk}: {file} of point {point} is not right below the overlay of the point. The disk is on {chain}."
    remedy_template = (
        "Nothing was merged. Another program has changed the chain of the disk, or the disk is on other files now. "
        "See `virsh domblklist {domain} --details` and `qemu-img info -U --backing-chain FILE`."
    )


class PointFilesShared(StillpointError):
    """Facts: `point`, `file`: it would change or go. `needed_by`: the ids of points that name it. `domains` that have it below a disk."""

    code = "point_files_shared"
    title = "Others need the files that a merge would change"
    detail_template = "{file} of point {point} is named by points ({needed_by}) or lies below disks of domains ({domains})."
    remedy_template = "Nothing was merged. Remove those points first, or make those domains independent: `virsh blockpull DOMAIN DISK`."


class PointMergeUnfinished(StillpointError):
    """The point was given up, and a disk was not merged. Facts: `point`, `domain`, `disks`, `why`."""

    code = "point_merge_unfinished"
    title = "The point was given up, but a disk was not merged"
    detail_template = "{point} of {domain}, {disks}: {why}."
    remedy_template = (
        "The guest and all other points lose nothing: the files are still there. Ask for the same merge once more, and it continues: "
        "`stillpoint remove --merge {point}`."
    )


class PointsApart(StillpointError):
    code = "points_apart"
    title = "The points lie in different repositories"
    detail_template = "{points} are not all in one repository."
    remedy_template = "Ask for one job for each repository."


class PointKept(StillpointError):
    """Facts: `point`, and `reasons`: what retention says of the point now. It was to go when the job was made."""

    code = "point_kept"
    title = "Retention keeps the point"
    detail_template = "{point} stays: {reasons}."
    remedy_template = (
        "There is nothing to do. Its policy, its repository or the points beside it changed after the job was made. "
        "POST /api/v1/retention/preview tells what goes now."
    )
