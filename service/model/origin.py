"""Which track of which policy a job and its point belong to: two labels.

The sealed manifest has them too, so that they outlive the database. A policy is known by its name. So a repository that is imported
into a new database has its retention again with the same policy files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OWN_LABELS = "stillpoint."
"""Labels that begin so are written by the service alone. A request with such a label is refused."""
POLICY_LABEL = f"{OWN_LABELS}policy"
TRACK_LABEL = f"{OWN_LABELS}track"
SCHEDULE_LABEL = f"{OWN_LABELS}schedule"
"""The schedule that asked for the job. Its follow-ups and retries have the label, too."""
CLEARED_LABEL = f"{OWN_LABELS}cleared_copy"
"""The id of the copy from which a job removes what the rules of the copy do not keep."""
COPY_LABEL = "stillpoint.copy"
"""The id of the copy to which a job sends points because a policy says so. The job has the label of the policy, too."""


@dataclass(frozen=True)
class Origin:
    """`policy`, `track`: their names, as they were when the job was made."""

    policy: str
    track: str

    def as_labels(self) -> dict[str, str]:
        return {POLICY_LABEL: self.policy, TRACK_LABEL: self.track}

    @classmethod
    def of(cls, labels: Mapping[str, str] | None) -> "Origin | None":
        """None: a person asked for the job, and not a policy."""
        policy, track = (labels or {}).get(POLICY_LABEL), (labels or {}).get(TRACK_LABEL)
        return cls(policy, track) if policy and track else None
