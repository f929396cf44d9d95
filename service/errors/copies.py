"""Copies of repositories elsewhere: what is asked of them, and what their stores answer."""

from service.errors.base import StillpointError

__all__ = [
    "CopyArrivedWrong",
    "CopyBad",
    "CopyDamaged",
    "CopyInUse",
    "CopyIncomplete",
    "CopyLocked",
    "CopyNotAnswering",
    "CopyPointNeeded",
    "CopyRefused",
    "CopyTaken",
    "CopyTargetInvalid",
    "CopyToolMissing",
    "CopyUnknown",
    "CopyUnusable",
    "LockNotOffered",
]


class CopyTargetInvalid(StillpointError):
    """Facts: `field`, `value`, `allowed`."""

    code = "copy_target_invalid"
    title = "The place of a copy is not valid"
    detail_template = "{field} is {value!r}. Allowed: {allowed}."
    remedy_template = "Correct {field}, and send the request again."


class CopyUnknown(StillpointError):
    code = "copy_not_found"
    title = "There is no such copy"
    detail_template = "The repository {repository} has no copy with the id or the name {copy}."
    remedy_template = "List the copies with GET /api/v1/repositories/{repository}/copies."


class CopyTaken(StillpointError):
    code = "copy_taken"
    title = "A copy with this name or place is registered already"
    detail_template = "{copy} is registered as {taken_by}."
    remedy_template = "Use the registered copy, or choose another name and place."


class CopyInUse(StillpointError):
    """Facts: `copy`, `jobs` that have not ended, `policies` that name it."""

    code = "copy_in_use"
    title = "Jobs or policies use the copy"
    detail_template = "{copy}: jobs that have not ended are {jobs}, policies that name it are {policies}."
    remedy_template = "Wait for the jobs, or cancel them. Take the copy out of the tracks of the policies."


class CopyNotAnswering(StillpointError):
    """Facts: `copy`, `what`, `reason`."""

    code = "copy_not_answering"
    title = "The store of the copy does not answer"
    detail_template = "{what} at {copy}: {reason}."
    remedy_template = "Look at the network and at the server behind {copy}. What was sent stays; the next job of the copy continues there."


class CopyRefused(StillpointError):
    """The store refuses. Facts: `copy`, `what`, `reason`, `answer`: the code of the store, or None."""

    code = "copy_refused"
    title = "The store of the copy refuses"
    detail_template = "{what} at {copy} was refused: {reason}."
    remedy_template = "Solve the problem that the reason names: rights of the key, the name of the bucket or remote, space. Then ask again."


class CopyBad(StillpointError):
    """Facts: `copy`, `reason`."""

    code = "copy_bad"
    title = "The place is not a copy of this repository"
    detail_template = "{copy}: {reason}."
    remedy_template = "Name an empty place, or the copy of this repository. Nothing was changed there."


class CopyToolMissing(StillpointError):
    """Facts: `copy`, `tool`."""

    code = "copy_tool_missing"
    title = "This host has not what the copy needs"
    detail_template = "{copy} needs {tool}, which the host has not."
    remedy_template = "Install it: pip install 'stillpoint[s3]' for S3, 'stillpoint[rclone]' or the package rclone for the others."


class CopyArrivedWrong(StillpointError):
    """What the store has is not what was sent. Facts: `copy`, `name`, `reason`."""

    code = "copy_arrived_wrong"
    title = "What arrived at the copy is not what was sent"
    detail_template = "{name} at {copy}: {reason}."
    remedy_template = "The point does not count as copied. Ask again; if it fails again, look at the store."


class CopyDamaged(StillpointError):
    """A point on the copy is not as it was sent. Facts: `copy`, `point`, `name`, `reason`."""

    code = "copy_damaged"
    title = "A point on the copy is damaged"
    detail_template = "{name} at {copy}: {reason}."
    remedy_template = "Ask for a `send`: the point is sent again if the repository still has it."


class CopyIncomplete(StillpointError):
    """Facts: `copy`, `point`."""

    code = "copy_incomplete"
    title = "The copy does not have the point"
    detail_template = "{copy} has no whole point {point}."
    remedy_template = "List what it has with GET /api/v1/repositories/REPOSITORY/copies/COPY/points."


class CopyLocked(StillpointError):
    """Facts: `copy`, `point`, `until`."""

    code = "copy_locked"
    title = "The point is locked on the copy"
    detail_template = "{copy} keeps {point} until {until}."
    remedy_template = "Wait until {until}. Nobody should be able to remove it before, and nothing was removed."


class CopyPointNeeded(StillpointError):
    """Facts: `copy`, `point`, `needed_by`: what stands on it there."""

    code = "copy_point_needed"
    title = "Other points on the copy stand on this one"
    detail_template = "On {copy} {point} is needed by {needed_by}."
    remedy_template = "Name all of them in one request, or keep the point: none of them comes back without it."


class CopyUnusable(StillpointError):
    """The courier, the process that carries points, died or cannot be started. Facts: `copy`, `step`, `reason`."""

    code = "copy_process_failed"
    title = "The process that carries points failed"
    detail_template = "{step} at {copy}: {reason}."
    remedy_template = "Look at the log of the worker, and ask again. What was sent stays."


class LockNotOffered(StillpointError):
    """The store has nothing that keeps an object from being removed. Facts: `copy`, `reason`."""

    code = "copy_lock_not_offered"
    title = "The store of the copy keeps no locks"
    detail_template = "{copy}: {reason}."
    remedy_template = (
        "Make a bucket with object lock, which cannot be switched on everywhere afterwards, or register the copy without `retain_days`."
    )
