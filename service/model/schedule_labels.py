"""The labels of a job that a schedule asked for, and of its recovery point. Follow-ups and retries of the job have them, too."""

from collections.abc import Mapping
from typing import Any

PREFIX = "stillpoint."
"""Labels that begin so are given by the service."""
POLICY = f"{PREFIX}policy"
TRACK = f"{PREFIX}track"
SCHEDULE = f"{PREFIX}schedule"


def labels_of(policy: str, track: str, schedule_id: str) -> dict[str, str]:
    return {POLICY: policy, TRACK: track, SCHEDULE: schedule_id}


def track_of(labels: Mapping[str, Any]) -> str | None:
    """None: a person asked for the job."""
    track = labels.get(TRACK)
    return track if isinstance(track, str) else None
