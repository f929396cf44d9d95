"""The examples of copies, in the story of `examples`."""

from typing import Any

from service.api.schemas.examples_repository import DOMAIN_ID, FOLDER, FULL_ID, REPOSITORY_ID, SEALED_ID

COPY_ID = "2f9d7c34-7f0e-4a1c-9a6b-6b1f0c7d5e21"
PROOF_JOB_ID = "7c1f2a90-52d4-4d0b-8e57-1a2b3c4d5e6f"
TARGET: dict[str, Any] = {
    "kind": "s3",
    "bucket": "stillpoint-hv1",
    "prefix": "nas",
    "endpoint": "https://s3.example.com",
    "region": "eu-central-1",
}
COPY_REQUEST: dict[str, Any] = {
    "name": "offsite",
    "target": TARGET,
    "key": "file:/etc/stillpoint/offsite.key",
    "retain_days": 30,
    "lock_mode": "compliance",
    "rate_limit_bytes": None,
    "retention": {"keep_monthly": 12},
}
COPY_CHANGE: dict[str, Any] = {"retain_days": 60}
ANSWERS: list[dict[str, Any]] = [
    {
        "attack": attack,
        "accepted": accepted,
        "code": None if accepted else "AccessDenied",
        "holds": True,
        "what": "the object is as it was, and locked until 2026-02-01T02:00:00.000000Z",
    }
    for attack, accepted in (("delete", True), ("overwrite", True), ("shorten", False), ("bypass", False), ("lengthen", True))
]
COPY: dict[str, Any] = {
    "id": COPY_ID,
    "name": "offsite",
    "repository": REPOSITORY_ID,
    "target": TARGET,
    "key": "file:/etc/stillpoint/offsite.key",
    "retain_days": 30,
    "lock_mode": "compliance",
    "rate_limit_bytes": None,
    "retention": {
        "keep_last": 0,
        "keep_hourly": 0,
        "keep_daily": 0,
        "keep_weekly": 0,
        "keep_monthly": 12,
        "keep_yearly": 0,
        "minimum_age_s": 0,
    },
    "created_at": "2026-01-31T01:00:00.000000Z",
    "opened_at": "2026-01-31T01:00:02.000000Z",
    "immutability": "immutable",
    "proven_at": "2026-01-31T01:00:07.000000Z",
    "proof_due_at": "2026-03-02T01:00:07.000000Z",
    "answers": ANSWERS,
    "points": {"sending": 0, "whole": 2, "removing": 0, "damaged": 0},
    "links": {
        "self": f"/api/v1/repositories/{REPOSITORY_ID}/copies/{COPY_ID}",
        "points": f"/api/v1/repositories/{REPOSITORY_ID}/copies/{COPY_ID}/points",
        "proofs": f"/api/v1/repositories/{REPOSITORY_ID}/copies/{COPY_ID}/proofs",
    },
}
COPIED_POINT: dict[str, Any] = {
    "recovery_point": SEALED_ID,
    "state": "whole",
    "folder": FOLDER,
    "domain": {"id": DOMAIN_ID, "name": "db1"},
    "point_in_time_at": "2026-01-31T22:00:01.000000Z",
    "verdict": "application",
    "parents": [FULL_ID],
    "manifest_digest": "4f0c1d7d5a3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0f9e8d7c6b5a4938",
    "size_bytes": 5368709120,
    "begun_at": "2026-01-31T23:00:00.000000Z",
    "sent_at": "2026-01-31T23:04:11.000000Z",
    "checked_at": "2026-01-31T23:04:11.000000Z",
    "checked_by": "checksum",
    "locked_until": "2026-03-02T23:00:00.000000Z",
    "retained_until": "2026-03-02T23:00:00.000000Z",
    "job_id": PROOF_JOB_ID,
}
COPY_PROOF: dict[str, Any] = {
    "at": "2026-01-31T01:00:07.000000Z",
    "job_id": PROOF_JOB_ID,
    "immutability": "immutable",
    "lock_mode": "compliance",
    "answers": ANSWERS,
    "why_not": None,
}
COPY_JOB_REQUEST: dict[str, Any] = {"kind": "copy", "repository": "nas", "copy": "offsite", "action": "send"}

PROBLEM_FACTS: dict[str, dict[str, Any]] = {
    "copy_not_found": {"repository": "nas", "copy": "offsite"},
    "copy_taken": {"copy": "offsite (s3://stillpoint-hv1/nas)", "taken_by": "offsite (s3://stillpoint-hv1/nas)"},
    "copy_locked": {"copy": "offsite", "point": SEALED_ID, "until": "2026-03-02T23:00:00.000000Z"},
    "copy_point_needed": {"copy": "offsite", "point": FULL_ID, "needed_by": [SEALED_ID]},
    "copy_in_use": {"copy": "offsite", "jobs": [PROOF_JOB_ID], "policies": ["production"]},
    "copy_incomplete": {"copy": "offsite", "point": SEALED_ID},
    "copy_target_invalid": {"field": "remote", "value": ":local:/srv", "allowed": "REMOTE:PATH"},
}
