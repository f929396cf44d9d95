"""The examples of protection, in the story of `examples`."""

from typing import Any

from service.api.schemas.examples_copies import COPY_ID
from service.api.schemas.examples_repository import BACKUP_ID, DOMAIN_ID, REPOSITORY_ID, SEALED_ID

_POINT: dict[str, Any] = {
    "id": SEALED_ID,
    "point_in_time_at": "2026-01-28T22:00:00.000000Z",
    "verdict": "filesystem",
    "repository_id": REPOSITORY_ID,
}
BROKEN: dict[str, Any] = {
    "domain": {"id": DOMAIN_ID, "name": "db1"},
    "host": "hv1",
    "state": "broken",
    "policy": "production",
    "newest_kept": _POINT,
    "newest_good": _POINT,
    "broken_at": "2026-01-30T00:00:00.000000Z",
    "next_run_at": "2026-01-30T22:00:00.000000Z",
    "broken_part": "rpo",
    "reason": {
        "code": "agent_not_answering",
        "sentence": "The guest agent has not answered since Thursday; 4 jobs failed.",
        "remedy": "Start the guest agent in the guest: systemctl start qemu-guest-agent.",
        "facts": {
            "error_code": "agent_not_answering",
            "error_facts": {"domain": "db1"},
            "job_id": BACKUP_ID,
            "jobs": 4,
            "since": "2026-01-29T22:00:09.000000Z",
        },
    },
    "proof": {
        "kind": "bytes",
        "max_age_s": 2592000.0,
        "proven_at": "2026-01-28T22:04:12.000000Z",
        "too_old_at": "2026-02-27T22:04:12.000000Z",
    },
    "links": {
        "self": f"/api/v1/protection/{DOMAIN_ID}",
        "domain": f"/api/v1/domains/{DOMAIN_ID}",
        "recovery_points": f"/api/v1/recovery-points?domain={DOMAIN_ID}",
    },
}
REPOSITORY: dict[str, Any] = {
    "id": REPOSITORY_ID,
    "name": "nas",
    "state": "ready",
    "free_bytes": 1610612736000,
    "full_at": "2026-03-04T11:20:00.000000Z",
}
COPY: dict[str, Any] = {
    "id": COPY_ID,
    "name": "offsite",
    "repository": {"id": REPOSITORY_ID, "name": "nas"},
    "faults": ["points_wait"],
    "newest_point_at": "2026-01-28T22:00:00.000000Z",
    "waiting": 212,
    "waiting_since": "2026-01-29T22:05:00.000000Z",
    "damaged": 0,
    "immutability": "immutable",
    "proven_at": "2026-01-20T10:00:00.000000Z",
    "locked_until": "2026-02-27T22:20:00.000000Z",
}
SUMMARY: dict[str, Any] = {
    "domains": 212,
    "protected": 203,
    "waiting": 1,
    "at_risk": 2,
    "broken": 1,
    "paused": 0,
    "tie": 0,
    "unprotected": 5,
    "proofs_too_old": 0,
    "repositories_that_fill_up": 1,
}
AS_OF = "2026-01-31T22:00:00.000000Z"
PROTECTION: dict[str, Any] = {
    "as_of": AS_OF,
    "summary": SUMMARY,
    "repositories": [REPOSITORY],
    "copies": [COPY],
    "items": [BROKEN],
    "next_cursor": None,
}
ONE_DOMAIN: dict[str, Any] = {
    "as_of": AS_OF,
    **BROKEN,
    "promise": {"rpo_s": 93600.0, "verdict": "filesystem", "proof": {"kind": "bytes", "max_age_s": 2592000.0}},
    "covered_since": "2025-12-01T09:30:00.000000Z",
    "next_run_at": "2026-02-01T01:00:00.000000Z",
    "usually_takes_s": 512.4,
    "last_jobs": [
        {
            "job_id": BACKUP_ID,
            "kind": "backup",
            "state": "failed",
            "at": "2026-01-31T01:00:12.000000Z",
            "error_code": "agent_not_answering",
            "in_a_row": 4,
            "since": "2026-01-29T22:00:09.000000Z",
        }
    ],
    "repositories": [REPOSITORY],
}
