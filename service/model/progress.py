"""How far a job has come that copies or reads for long."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from service.clock import rfc3339
from service.errors import StillpointError


def progress_document(phase: str, disk: str | None, done_bytes: int, total_bytes: int | None, rate_bytes_s: float | None) -> dict[str, Any]:
    """`disk` None: all of the job's disks, or no single one. `seconds_left` is null where it cannot be told."""
    left_s = None
    if total_bytes is not None and rate_bytes_s is not None and rate_bytes_s > 0:
        left_s = round(max(0, total_bytes - done_bytes) / rate_bytes_s, 1)
    return {
        "phase": phase,
        "disk": disk,
        "done_bytes": done_bytes,
        "total_bytes": total_bytes,
        "rate_bytes_s": round(rate_bytes_s) if rate_bytes_s is not None else None,
        "seconds_left": left_s,
        "waiting_for": None,
    }


def waiting_document(so_far: Mapping[str, Any], error: StillpointError, since: datetime, until: datetime) -> dict[str, Any]:
    """`so_far`: the progress before. `error`: why the step waits. `until`: when the job gives up."""
    waits = {"code": error.code, "detail": error.detail, "since": rfc3339(since), "until": rfc3339(until)}
    return {**so_far, "rate_bytes_s": None, "seconds_left": None, "waiting_for": waits}
