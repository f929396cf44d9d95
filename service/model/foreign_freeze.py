"""A guest that is frozen, but not by a running job: who froze the guest and since when, as far as that is known."""

from dataclasses import dataclass, field
from typing import Any

JOB = "job"
"""The job that holds the guest, or that ended without an answer to its thaw."""
NOT_STILLPOINT = "not_stillpoint"
"""The guest was seen thawed, then no job of ours froze it, and now it is frozen."""
UNKNOWN = "unknown"

FOREIGN_FREEZE_POLL_S = 5.0
"""Seconds between two questions to a guest that another client has frozen: is the guest still frozen?"""
FOREIGN_FREEZE_MAX_AGE_S = 3 * FOREIGN_FREEZE_POLL_S
"""Seconds. Maximum age of an observed foreign freeze on which the API still refuses a job."""

FrozenBy = dict[str, str | None]
"""`kind`: one of the three above. `job_id`: the job, if the kind is `job`. Otherwise None."""


def by_job(job_id: str) -> FrozenBy:
    return {"kind": JOB, "job_id": job_id}


def by_another() -> FrozenBy:
    return {"kind": NOT_STILLPOINT, "job_id": None}


def by_unknown() -> FrozenBy:
    return {"kind": UNKNOWN, "job_id": None}


def in_one_shape(published: Any) -> FrozenBy | None:
    """`frozen_by` of a published domain. An older worker publishes the kind as text, and a job as {"job_id"} alone."""
    if published is None:
        return None
    if isinstance(published, str):
        return {"kind": published, "job_id": None}
    return {"kind": published.get("kind", JOB), "job_id": published["job_id"]}


@dataclass(frozen=True)
class ForeignFreeze:
    """`since`: when the guest was first seen frozen, RFC 3339. The freeze itself may be older."""

    since: str
    by: FrozenBy = field(default_factory=by_unknown)
