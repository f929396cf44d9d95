"""The examples in the API's documentation: one story, told through every call."""

from typing import Any

from service.api.schemas import examples_copies, examples_policy, examples_repository, examples_windows
from service.model.documents import NOT_IN_LISTS

JOB_ID = "7f1c0a54-6d0e-4c1b-9a35-0f6f7f1f2c11"
DOMAIN_ID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
POINT_ID = "e2b7c1de-8d5c-4f0a-b3f4-5a0f6f1c9d22"
CREATED_AT = "2026-01-31T22:00:00.000000Z"
FREEZE = {"mode": "required", "timeout_ms": 120000, "hold_limit_ms": None, "hold_soft_ms": None, "preflush": True, "fuse": True}

SNAPSHOT_REQUEST: dict[str, Any] = {"kind": "snapshot", "domain": "db1", "freeze": {"mode": "required"}, "labels": {"plan": "nightly"}}
PREFLIGHT_REQUEST: dict[str, Any] = {"disks": ["vda"], "freeze": {"mode": "required"}}

QUEUED_JOB: dict[str, Any] = {
    "id": JOB_ID,
    "kind": "snapshot",
    "domain": {"id": DOMAIN_ID, "name": "db1"},
    "host": "hv1",
    "state": "queued",
    "phase": None,
    "progress": None,
    "attempt": 0,
    "max_attempts": 3,
    "created_at": CREATED_AT,
    "started_at": None,
    "finished_at": None,
    "cancel_requested": False,
    "retry_of": None,
    "labels": {"plan": "nightly"},
    "request": {
        "kind": "snapshot",
        "domain": "db1",
        "host": None,
        "disks": None,
        "freeze": FREEZE,
        "required_verdict": None,
        "on_shortfall": "keep",
    },
    "verdict": None,
    "verdict_reasons": [],
    "vss_outcome": None,
    "writer_failed": None,
    "freeze": None,
    "timing": None,
    "phases": [],
    "recovery_point": None,
    "result": None,
    "error": None,
    "vss": None,
    "auto_recovery": None,
    "evidence": None,
    "links": {"self": f"/api/v1/jobs/{JOB_ID}", "explain": f"/api/v1/jobs/{JOB_ID}/explain"},
}

JOB: dict[str, Any] = {
    **QUEUED_JOB,
    "state": "succeeded",
    "phase": "evaluate",
    "attempt": 1,
    "started_at": "2026-01-31T22:00:00.018000Z",
    "finished_at": "2026-01-31T22:00:00.401000Z",
    "verdict": "filesystem",
    "verdict_reasons": [
        {
            "code": "held",
            "effect": "lifts",
            "detail": "The point in time lies inside a hold of 15.1 ms, and 2 of 2 filesystem(s) were thawed after it.",
        },
        {"code": "no_hook", "effect": "lowers", "detail": "The guest has no fsfreeze hook, so its applications were not told."},
    ],
    "freeze": {
        "mode": "required",
        "outcome": "frozen",
        "filesystems_frozen": 2,
        "message": None,
        "scope": "all: every filesystem lies on the job's disks",
        "mountpoints": None,
        "thaw_outcome": "completed",
        "filesystems_thawed": 2,
        "thaw_message": None,
        "thaw_attempts": 1,
        "watchdog_fired": False,
        "guard_died": False,
        "guard": None,
        "frozen_afterwards": False,
        "preflush": {"rounds": 1, "duration_ms": 38.2, "message": None},
        "fuse": {"state": "disarmed", "after_s": 155, "reason": None, "arm_ms": 31.7, "disarm_ms": 27.4},
    },
    "timing": {
        "freeze_ms": 21.4,
        "point_in_time_ms": 14.2,
        "thaw_ms": 4.1,
        "hold_ms": 15.1,
        "window_ms": 40.6,
        "limits": {"freeze_ms": 120000.0, "hold_ms": 30000.0, "freeze_to_thaw_ms": None},
        "within_limits": True,
    },
    "phases": [{"name": "preflight", "started_at": CREATED_AT, "duration_ms": 31.0, "outcome": "ok", "detail": None}],
    "recovery_point": {
        "id": POINT_ID,
        "disks": [{"target": "vda", "file": "/var/lib/libvirt/images/db1.qcow2", "format": "qcow2", "virtual_size": 21474836480}],
    },
    "vss": {"applicable": False},
    "auto_recovery": {
        "mode": "not_applicable",
        "source": "derived",
        "on_restore": "not_applicable",
        "context": None,
        "detail": "The guest is not Windows: VSS and its auto-recovery do not exist in it.",
        "writers": [],
    },
    "evidence": {},
}

WINDOWS_JOB_ID = "f0a3c1d2-8f3b-4f7e-9d6a-1c2b3a4d5e6f"
WINDOWS_JOB: dict[str, Any] = {
    **JOB,
    "id": WINDOWS_JOB_ID,
    "domain": {"id": "5b8f6a0e-3c0d-4f53-8d9e-2f7a6c1b0d94", "name": "sql1"},
    "state": "failed",
    "phase": None,
    "created_at": "2026-01-31T22:05:00.000000Z",
    "started_at": "2026-01-31T22:05:00.021000Z",
    "finished_at": "2026-01-31T22:05:03.105000Z",
    "request": {**QUEUED_JOB["request"], "domain": "sql1", "required_verdict": "application"},
    "verdict_reasons": examples_windows.VERDICT_REASONS,
    "vss_outcome": "completed",
    "writer_failed": True,
    "freeze": {
        **JOB["freeze"],
        "scope": "all: on Windows a subset is never safe",
        "preflush": None,
        "fuse": {"state": "unavailable", "after_s": 133, "reason": "Windows lets writes go by itself", "arm_ms": None, "disarm_ms": None},
    },
    "timing": examples_windows.TIMING,
    "phases": [
        {"name": "preflight", "started_at": "2026-01-31T22:05:00.021000Z", "duration_ms": 60.2, "outcome": "ok", "detail": None},
        {"name": "writers_before", "started_at": "2026-01-31T22:05:00.082000Z", "duration_ms": 276.4, "outcome": "ok", "detail": None},
        {"name": "prepare", "started_at": "2026-01-31T22:05:00.359000Z", "duration_ms": 48.9, "outcome": "ok", "detail": None},
        {"name": "freeze", "started_at": "2026-01-31T22:05:00.410000Z", "duration_ms": 2140.6, "outcome": "ok", "detail": None},
        {"name": "point_in_time", "started_at": "2026-01-31T22:05:02.551200Z", "duration_ms": 17.1, "outcome": "ok", "detail": None},
        {"name": "thaw", "started_at": "2026-01-31T22:05:02.569000Z", "duration_ms": 187.3, "outcome": "ok", "detail": None},
        {"name": "writers_after", "started_at": "2026-01-31T22:05:02.760000Z", "duration_ms": 342.7, "outcome": "ok", "detail": None},
        {"name": "evaluate", "started_at": "2026-01-31T22:05:03.104000Z", "duration_ms": 0.6, "outcome": "ok", "detail": None},
    ],
    "recovery_point": {
        "id": "1d0c2c7e-6c0b-4f9a-9a57-7f1f0f7e3b21",
        "disks": [{"target": "vda", "file": "/var/lib/libvirt/images/sql1.qcow2", "format": "qcow2", "virtual_size": 85899345920}],
    },
    "error": {
        "code": "verdict_below_required",
        "title": "The recovery point is worse than what was required",
        "detail": "The verdict is filesystem; application was required. The recovery point is kept with its true verdict.",
        "remedy": "GET /api/v1/jobs/{id}/explain says what lowered it and what would lift it.",
        "facts": {"verdict": "filesystem", "required": "application", "kept": "is kept with its true verdict"},
    },
    "vss": examples_windows.VSS,
    "auto_recovery": examples_windows.AUTO_RECOVERY,
    "links": {"self": f"/api/v1/jobs/{WINDOWS_JOB_ID}", "explain": f"/api/v1/jobs/{WINDOWS_JOB_ID}/explain"},
}

JOB_SUMMARY = {name: value for name, value in JOB.items() if name not in NOT_IN_LISTS}

FAILED_JOB: dict[str, Any] = {
    **QUEUED_JOB,
    "state": "failed",
    "error": {
        "code": "agent_not_answering",
        "title": "The guest agent does not answer",
        "detail": "The agent of db1 did not answer guest-ping within 5000 ms: Guest agent is not responding.",
        "remedy": "Check that qemu-guest-agent runs in the guest (`systemctl status qemu-guest-agent`).",
        "facts": {"domain": "db1", "command": "guest-ping", "timeout_ms": 5000},
    },
}
CANCELLED_JOB: dict[str, Any] = {**QUEUED_JOB, "state": "cancelled", "finished_at": CREATED_AT, "cancel_requested": True}
RETRIED_JOB: dict[str, Any] = {**QUEUED_JOB, "id": "0b9f6c58-93a3-4a39-8d0f-52d7f2d5a733", "retry_of": JOB_ID}
PREFLIGHT_JOB: dict[str, Any] = {**QUEUED_JOB, "kind": "preflight"}
BACKUP_JOB: dict[str, Any] = {
    **QUEUED_JOB,
    **examples_repository.RUNNING_BACKUP,
    "request": {**QUEUED_JOB["request"], **examples_repository.BACKUP_TERMS},
}
PRUNE_JOB: dict[str, Any] = {
    **QUEUED_JOB,
    "kind": "prune",
    "domain": None,
    "request": {
        "kind": "prune",
        "repository": examples_repository.REPOSITORY_ID,
        "recovery_points": [examples_repository.SEALED_ID],
        "with_needing": False,
        "domain": "db1",
        "host": None,
        "retention": None,
    },
    "labels": {},
}
THAW_JOB: dict[str, Any] = {**QUEUED_JOB, "kind": "thaw", "request": {"kind": "thaw", "domain": "db1", "host": None}, "labels": {}}

EXPLANATION: dict[str, Any] = {
    "summary": "This point is filesystem-consistent: the guest's filesystems were frozen while it was taken.",
    "because": ["2 filesystems were frozen, and the same 2 were thawed."],
    "would_lift": ["Install an fsfreeze hook in the guest that quiets the database, and that passes failures on."],
}

RECOVERY_POINT: dict[str, Any] = {
    "id": POINT_ID,
    "job_id": JOB_ID,
    "kind": "snapshot",
    "domain": {"id": DOMAIN_ID, "name": "db1"},
    "host": "hv1",
    "state": "taken",
    "created_at": "2026-01-31T22:00:00.401000Z",
    "point_in_time_at": "2026-01-31T22:00:00.310000Z",
    "verdict": "filesystem",
    "labels": {"plan": "nightly"},
    "pinned": False,
    "retained_until": None,
    "repository": None,
    "folder": None,
    "manifest_digest": None,
    "parents": [],
    "is_encrypted": False,
    "is_domain_controller": None,
    "disks": JOB["recovery_point"]["disks"],
    "left_out": [],
    "proofs": [],
    "size_bytes": None,
    "links": {"self": f"/api/v1/recovery-points/{POINT_ID}", "job": f"/api/v1/jobs/{JOB_ID}"},
}

DOMAIN: dict[str, Any] = {
    "id": DOMAIN_ID,
    "name": "db1",
    "host": "hv1",
    "state": "running",
    "stale": False,
    "published_at": CREATED_AT,
    "labels": {"tier": "gold"},
    "persistent": True,
    "frozen": False,
    "frozen_since": None,
    "frozen_by": None,
    "disks": [
        {
            "target": "vda",
            "device": "disk",
            "type": "file",
            "source": "/var/lib/libvirt/images/db1.qcow2",
            "format": "qcow2",
            "read_only": False,
            "serial": None,
            "can_snapshot": True,
            "reason": None,
            "virtual_size": 21474836480,
            "chain_depth": 1,
            "chain": ["/var/lib/libvirt/images/db1.qcow2"],
        }
    ],
    "filesystems": [{"mountpoint": "/", "name": "vda1", "type": "ext4", "disks": ["vda"]}],
    "agent": {"channel": True, "connected": True, "version": "7.2.22", "freeze_enabled": True, "exec_enabled": True},
    "os": {"family": "linux", "name": "Debian GNU/Linux", "version": "12", "kernel": "6.1.0-41-amd64"},
    "newest_recovery_point": {"id": POINT_ID, "created_at": CREATED_AT, "verdict": "filesystem"},
    "links": {"self": f"/api/v1/domains/{DOMAIN_ID}", "jobs": f"/api/v1/jobs?domain={DOMAIN_ID}"},
}

HOST: dict[str, Any] = {
    "id": "hv1",
    "started_at": "2026-01-30T06:00:00.000000Z",
    "last_seen": "2026-01-31T22:00:00.000000Z",
    "seconds_since_seen": 1.2,
    "stale": False,
    "version": "0.1.0",
    "libvirt_uri": "qemu:///system",
    "libvirt_connected": True,
    "libvirt_error": None,
    "versions": {"libvirt": "9.0.0", "hypervisor": "QEMU 7.2.22"},
    "inventory_at": "2026-01-31T21:59:58.000000Z",
}

FORGOTTEN_HOST: dict[str, Any] = {"id": "hv1", "jobs_failed": [JOB_ID], "jobs_cancelled": 2, "domains": 12}

METRICS = (
    "# HELP stillpoint_jobs Jobs that are not finished, by state and kind.\n" + 'stillpoint_jobs{kind="snapshot",state="queued"} 1.0\n'
)

#: By error code: the facts that fill its texts.
PROBLEM_FACTS: dict[str, dict[str, Any]] = {
    **examples_repository.PROBLEM_FACTS,
    **examples_policy.PROBLEM_FACTS,
    **examples_copies.PROBLEM_FACTS,
    "job_not_found": {"job_id": JOB_ID},
    "recovery_point_not_found": {"recovery_point_id": POINT_ID},
    "domain_unknown": {"domain": "db7", "hosts": "hv1 (last seen 2 s ago)"},
    "host_unknown": {"host": "hv9"},
    "host_not_silent": {"host": "hv1", "seen_ago_s": 3.1, "silence_s": 90.0, "free_in_s": 86.9},
    "domain_ambiguous": {"domain": "db1", "hosts": "hv1, hv2"},
    "domain_queue_full": {"domain": "db1", "limit": 200},
    "cancel_refused": {"job_id": JOB_ID, "state": "succeeded", "reason": "it is finished"},
    "guest_already_frozen": {
        "domain": "db1",
        "frozen_by": {"kind": "not_stillpoint", "job_id": None},
        "frozen_since": "2026-01-31T21:58:30.000000Z",
    },
    "retry_refused": {"job_id": JOB_ID, "state": "running", "reason": "it is not finished"},
    "malformed_json": {"reason": "Expecting value at character 9"},
    "body_too_large": {"limit_bytes": 65536},
    "unsupported_media_type": {"content_type": "text/plain"},
    "validation_failed": {
        "count": 1,
        "summary": "body.freeze.mode: Input should be 'required', 'preferred' or 'off'",
        "fields": [{"field": "body.freeze.mode", "reason": "Input should be 'required', 'preferred' or 'off'"}],
    },
    "cursor_invalid": {"cursor": "bm8"},
    "idempotency_mismatch": {"key": "nightly-db1-2026-01-31", "job_id": JOB_ID},
    "database_unavailable": {"reason": "database is locked"},
    "database_replaced": {"what": "/var/lib/stillpoint/stillpoint.db was deleted"},
    "libvirt_unavailable": {"uri": "qemu:///system", "reason": "Failed to connect socket"},
    "state_folder_unwritable": {"path": "/var/lib/stillpoint", "reason": "No space left on device"},
    "host_taken": {"held_by": "hv1:4711", "host": "hv1", "seen_ago_s": 3, "free_in_s": 57},
    "loop_died": {"thread": "worker-claims", "reason": "MemoryError"},
    "loop_hangs": {"thread": "worker-inventory", "silent_s": 151, "limit_s": 150.0},
    "gate_not_found": {"job_id": JOB_ID, "domain": "db1"},
    "gate_token_wrong": {"job_id": JOB_ID},
    "gate_closed": {"job_id": JOB_ID},
    "gate_not_opened": {"domain": "db1", "why": "the caller had given up"},
    "domain_paused": {"domain": "db1", "state": "paused"},
    "domain_state_unsuitable": {"domain": "db1", "state": "not running, so there is nothing to freeze"},
    "agent_not_answering": {"domain": "db1", "command": "guest-ping", "timeout_ms": 5000, "message": "not connected"},
    "freeze_failed": {"domain": "db1", "outcome": "refused", "message": "failed to freeze /data"},
    "hold_limit_too_long": {"asked_ms": 30000, "limit_ms": 10000},
    "job_cancelled": {"phase": "freeze"},
    "schema_outdated": {"found": "none", "needed": "0001"},
}
