"""A guest that is frozen, and not by a job that runs: what is known of who and since when."""

from dataclasses import dataclass

UNKNOWN = "unknown"
NOT_STILLPOINT = "not_stillpoint"
"""It was seen thawed, no job of ours froze it since, and then it was frozen."""

FROZEN_LOOK_S = 5.0
"""How often the worker asks a guest that somebody else has frozen whether it still is."""
FROZEN_BELIEVED_S = 3 * FROZEN_LOOK_S
"""How long the API refuses on the word of a worker that does not repeat it."""

FrozenBy = str | dict[str, str]
"""`unknown`, `not_stillpoint`, or {"job_id"} of the job that holds it, or that ended without an answer to its thaw."""


@dataclass(frozen=True)
class ForeignFreeze:
    """`since`: when it was first seen frozen, RFC 3339; the freeze itself may be older."""

    since: str
    by: FrozenBy = UNKNOWN
