"""When a repository will be full, by the free space that it had lately: a robust line (Theil-Sen) through the samples."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

LOOK_BACK_DAYS = 14
"""Days before the newest sample. Older samples are not looked at."""
MIN_SAMPLES = 6
"""Samples. With fewer there is no trend."""
MIN_SPAN_HOURS = 24
"""Hours between the oldest and the newest sample. In a shorter time there is no trend: one backup is not a habit."""
MAX_SAMPLES = 60
"""Samples. Of more, as many are taken at even distances, because the work grows with the square of the number."""
FAR_DAYS = 3650
"""Days. A repository that is full later than this does not fill up."""

_DAY_S = 86_400


class Sample(NamedTuple):
    at: datetime
    free_bytes: int


def full_at(samples: Sequence[Sample], reserve_bytes: int = 0) -> datetime | None:
    """When the free space falls to `reserve_bytes`. `samples`: oldest first. None: it does not fall, or too little is known.

    The rate is the median over all pairs of samples. So a few samples that are far off hardly change it.
    The date counts from the newest sample, because what is free now is known.
    """
    recent = _recent(samples)
    if not recent:
        return None
    newest = recent[-1]
    left = newest.free_bytes - reserve_bytes
    if left <= 0:
        return newest.at
    if len(recent) < MIN_SAMPLES or newest.at - recent[0].at < timedelta(hours=MIN_SPAN_HOURS):
        return None
    lost_per_second = -_slope(_thinned(recent))
    if lost_per_second * FAR_DAYS * _DAY_S < left:
        return None
    return newest.at + timedelta(seconds=left / lost_per_second)


def _recent(samples: Sequence[Sample]) -> list[Sample]:
    if not samples:
        return []
    oldest = samples[-1].at - timedelta(days=LOOK_BACK_DAYS)
    return [sample for sample in samples if sample.at >= oldest]


def _thinned(samples: list[Sample]) -> list[Sample]:
    """At most MAX_SAMPLES, with the first and the last."""
    if len(samples) <= MAX_SAMPLES:
        return samples
    step = (len(samples) - 1) / (MAX_SAMPLES - 1)
    return [samples[round(n * step)] for n in range(MAX_SAMPLES)]


def _slope(samples: list[Sample]) -> float:
    """Bytes per second. 0 when all samples are of one instant."""
    first = samples[0].at
    known = [((sample.at - first).total_seconds(), sample.free_bytes) for sample in samples]
    slopes = [
        (later_free - free) / (later - at) for n, (at, free) in enumerate(known) for later, later_free in known[n + 1 :] if later > at
    ]
    return median(slopes) if slopes else 0.0
