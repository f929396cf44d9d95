"""What the API says of a job and of a recovery point: the only description of their shape.

A row is rendered when it is written, and the text is kept beside it (`service.db.documents`): a read passes the text on.
"""

import json
from datetime import datetime
from typing import Any

from service.clock import rfc3339

NOT_IN_LISTS = ("vss", "auto_recovery", "evidence")
"""Most of a job, and read one job at a time. `evidence` comes last, so that raw texts can be added at the end of the text."""


def job_as_document(job: Any) -> dict[str, Any]:
    """`job` has the columns of the row as attributes. The raw texts of the evidence are not in the document: see `text_of_job`."""
    return {**entry_of_job(job), **details_of_job(job)}


def _domain_of(job: Any) -> dict[str, Any] | None:
    """A job that is about no domain may be about the point of one."""
    if job.domain_id is not None:
        return {"id": job.domain_id, "name": job.domain_name}
    request = job.request or {}
    return {"id": request["domain_id"], "name": request.get("domain")} if request.get("domain_id") is not None else None


def entry_of_job(job: Any) -> dict[str, Any]:
    """A job as it stands in a list."""
    return {
        "id": job.id,
        "kind": job.kind,
        "domain": _domain_of(job),
        "host": job.host_id,
        "state": job.state,
        "phase": job.phase,
        "progress": job.progress,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "created_at": rfc3339(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "cancel_requested": job.cancel_requested,
        "retry_of": job.retry_of,
        "labels": job.labels,
        "request": job.request,
        "verdict": job.verdict,
        "verdict_reasons": job.verdict_reasons,
        "vss_outcome": job.vss_outcome,
        "writer_failed": job.writer_failed,
        "freeze": job.freeze,
        "timing": job.timing,
        "phases": job.phases,
        "recovery_point": job.recovery_point,
        "result": job.result,
        "error": job.error,
        "links": {"self": f"/api/v1/jobs/{job.id}", "explain": f"/api/v1/jobs/{job.id}/explain"},
    }


def details_of_job(job: Any) -> dict[str, Any]:
    return {name: getattr(job, name) for name in NOT_IN_LISTS}


def point_as_document(point: Any) -> dict[str, Any]:
    return {
        "id": point.id,
        "job_id": point.job_id,
        "kind": point.kind,
        "domain": {"id": point.domain_id, "name": point.domain_name},
        "host": point.host_id,
        "state": point.state,
        "created_at": rfc3339(point.created_at),
        "point_in_time_at": rfc3339(point.point_in_time_at),
        "verdict": point.verdict,
        "labels": point.labels,
        "pinned": bool(point.pinned),
        "retained_until": _time(point.retained_until),
        "repository": point.repository_id,
        "folder": point.folder,
        "manifest_digest": point.manifest_digest,
        "parents": point.parents or [],
        "is_encrypted": bool(point.is_encrypted),
        "is_domain_controller": point.is_domain_controller,
        "disks": point.disks,
        "left_out": point.left_out or [],
        "proofs": point.proofs or [],
        "size_bytes": point.size_bytes,
        "links": {"self": f"/api/v1/recovery-points/{point.id}", "job": f"/api/v1/jobs/{point.job_id}" if point.job_id else None},
    }


def texts_of_job(job: Any) -> dict[str, str]:
    """By column of the table that keeps them."""
    return {"entry": _text(entry_of_job(job)), "details": _text(details_of_job(job))}


def texts_of_point(point: Any) -> dict[str, str]:
    return {"document": _text(point_as_document(point))}


def text_of_job(entry: str, details: str, raw_texts: str | None = None) -> str:
    """The whole job. `raw_texts` are members of a JSON object with commas between them, and become further members of `evidence`."""
    if raw_texts and not details.endswith("null}"):
        comma = "" if details.endswith("{}}") else ","
        details = f"{details[:-2]}{comma}{raw_texts}}}}}"
    return f"{entry[:-1]},{details[1:]}"


def _time(clock: datetime | None) -> str | None:
    return rfc3339(clock) if clock is not None else None


def _text(document: dict[str, Any]) -> str:
    # Without spaces: the API finds what it pages by in the text itself.
    return json.dumps(document, separators=(",", ":"))
