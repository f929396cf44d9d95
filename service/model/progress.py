"""How far a job has come that copies or reads for long."""

from typing import Any


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
    }
