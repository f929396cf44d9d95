"""The examples of policies, in the story of `examples`."""

from typing import Any

from service.api.schemas.examples_repository import DOMAIN_ID
from service.errors import RepositoryNotKnown, TextExpected

POLICY_ID = "d2b6a1f4-3c58-4e0b-9a77-51c0e8f3b6d9"

POLICY_REQUEST: dict[str, Any] = {
    "name": "production",
    "selector": {"names": ["db-*"], "labels": {"tier": "gold"}},
    "tracks": [
        {
            "name": "nightly",
            "job": {"kind": "backup", "repository": "nas", "required_verdict": "filesystem"},
            "schedule": {"cron": "0 2 * * *", "time_zone": "Europe/Berlin", "jitter_s": 600},
            "retention": {"keep_daily": 14, "keep_weekly": 8},
        }
    ],
    "promise": {"rpo_s": 93600, "verdict": "filesystem"},
}
DOCUMENT: dict[str, Any] = {
    "name": "production",
    "description": "",
    "paused": False,
    "selector": {"names": ["db-*"], "labels": {"tier": "gold"}, "hosts": None, "all_the_rest": False},
    "tracks": [
        {
            "name": "nightly",
            "job": {
                "kind": "backup",
                "repository": "nas",
                "level": "auto",
                "compress": False,
                "compare": "copied",
                "rate_limit_bytes": None,
                "impact_limit_ms": None,
                "leave_out": None,
                "freeze": {
                    "mode": "required",
                    "timeout_ms": 120000,
                    "hold_limit_ms": None,
                    "hold_soft_ms": None,
                    "preflush": True,
                    "fuse": True,
                },
                "required_verdict": "filesystem",
                "on_shortfall": "keep",
            },
            "schedule": {
                "cron": "0 2 * * *",
                "time_zone": "Europe/Berlin",
                "jitter_s": 600,
                "catch_up": "run",
                "catch_up_within_s": 86400,
            },
            "retention": {
                "keep_last": 0,
                "keep_hourly": 0,
                "keep_daily": 14,
                "keep_weekly": 8,
                "keep_monthly": 0,
                "keep_yearly": 0,
                "minimum_age_s": 0,
                "merge_at": None,
                "new_full": {"max_depth": 20, "max_ratio": None},
            },
            "copies": None,
        }
    ],
    "blackouts": [],
    "limits": {"guests_in_window_per_host": None, "transfers_per_repository": None},
    "promise": {"rpo_s": 93600, "verdict": "filesystem", "proof": None},
}
POLICY: dict[str, Any] = {
    "id": POLICY_ID,
    "name": "production",
    "paused": False,
    "revision": 3,
    "created_at": "2026-01-30T06:00:00.000000Z",
    "updated_at": "2026-01-31T21:00:00.000000Z",
    "document": DOCUMENT,
    "links": {
        "self": f"/api/v1/policies/{POLICY_ID}",
        "domains": f"/api/v1/policies/{POLICY_ID}/domains",
        "runs": f"/api/v1/policies/{POLICY_ID}/runs",
    },
}
REMOVED_POLICY: dict[str, Any] = {"id": POLICY_ID, "name": "production", "revision": 3}
APPLY_REQUEST: dict[str, Any] = {
    "policies": [{"document": {**POLICY_REQUEST, "name": "databases", "selector": {"names": ["db1"]}}, "revision": 0}],
    "remove": [],
    "dry_run": True,
}
APPLIED: dict[str, Any] = {
    "dry_run": False,
    "policies": [{"name": "production", "change": "changed", "revision": 4}, {"name": "test", "change": "removed", "revision": 1}],
}
LABELS_REQUEST: dict[str, Any] = {"labels": {"tier": "gold", "site": "berlin"}}
WHY: dict[str, Any] = {"name": "db-*", "labels": {"tier": "gold"}, "host": None, "all_the_rest": False}
DOMAIN_OF_POLICY: dict[str, Any] = {
    "id": DOMAIN_ID,
    "name": "db-1",
    "host": "hv1",
    "labels": {"tier": "gold"},
    "why": WHY,
    "tie": None,
}
RUN: dict[str, Any] = {
    "due_at": "2026-01-31T01:00:00.000000Z",
    "track": "nightly",
    "domain": {"id": DOMAIN_ID, "name": "db-1"},
    "outcome": "missed",
    "reason": "too_late",
    "facts": {"late_s": 97200},
    "job_id": None,
    "decided_at": "2026-02-01T04:04:12.310000Z",
}
_STARTS: dict[str, Any] = {"hour": "2026-02-01T01:00:00.000000Z", "starts": 1, "by_track": {"nightly": 1}}
_NONE: dict[str, Any] = {"count": 0, "items": []}
PREVIEW: dict[str, Any] = {
    "policy": "production",
    "is_on_record": False,
    "document": DOCUMENT,
    "begin": "2026-02-01T00:00:00.000000Z",
    "until": "2026-02-01T02:00:00.000000Z",
    "domains": {"count": 1, "items": [{"id": DOMAIN_ID, "name": "db-1", "host": "hv1", "why": WHY}]},
    "takes": {"count": 1, "items": [{"id": DOMAIN_ID, "name": "db-1", "host": "hv1", "policies": ["rest"]}]},
    "loses": _NONE,
    "outranked": _NONE,
    "ties": _NONE,
    "runs": {
        "count": 1,
        "items": [
            {
                "domain": {"id": DOMAIN_ID, "name": "db-1"},
                "track": "nightly",
                "due_at": "2026-02-01T01:00:00.000000Z",
                "starts_at": "2026-02-01T01:07:31.204000Z",
                "outcome": "queued",
                "reason": None,
            }
        ],
        "by_outcome": {"queued": 1, "missed": 0, "skipped": 0},
        "domains_left_out": 0,
    },
    "load": [{"hour": "2026-02-01T00:00:00.000000Z", "starts": 0, "by_track": {}}, _STARTS],
    "busiest_hour": _STARTS,
}

PROBLEM_FACTS: dict[str, dict[str, Any]] = {
    "policy_not_found": {"policy": "production"},
    "policy_taken": {"policy": "production", "policy_id": POLICY_ID},
    "policy_changed": {"policy": "production", "revision": 2, "now": 3},
    "policy_tie": {"ties": [{"id": DOMAIN_ID, "name": "db1", "policies": ["databases", "production"]}]},
    "policy_invalid": {
        "policy": '"production"',
        "faults": [
            TextExpected(path="tracks[0].job.freeze.mode", value="false", allowed="required or preferred or off"),
            RepositoryNotKnown(path="tracks[0].job.repository", value='"nsa"', known="nas"),
        ],
    },
}
