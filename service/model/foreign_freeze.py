"""A guest that is frozen, but not by a running job: who froze the guest and since when, as far as that is known."""

from dataclasses import dataclass

UNKNOWN = "unknown"
NOT_STILLPOINT = "not_stillpoint"
"""The guest was seen thawed, then no job of ours froze it, and now it is frozen."""

FOREIGN_FREEZE_POLL_S = 5.0
"""Seconds between two questions to a guest that another client has frozen: is the guest still frozen?"""
FOREIGN_FREEZE_MAX_AGE_S = 3 * FOREIGN_FREEZE_POLL_S
"""Seconds. Maximum age of an observed foreign freeze on which the API still refuses a job."""

FrozenBy = str | dict[str, str]
"""`unknown`, `not_stillpoint`, or {"job_id"} of the job that holds the guest or that ended without an answer to its thaw."""


@dataclass(frozen=True)
class ForeignFreeze:
    """`since`: when the guest was first seen frozen, RFC 3339. The freeze itself may be older."""

    since: str
    by: FrozenBy = UNKNOWN
