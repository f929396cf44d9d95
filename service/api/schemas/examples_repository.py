"""The examples of repositories, backups and restores, in the story of `examples`."""

from typing import Any

REPOSITORY_ID = "4b1f7a52-90c4-4d59-8f6e-3a7c1c55e0aa"
FULL_ID = "a90c2f1e-1a47-4f0e-8a53-6d1f2b3c4d5e"
SEALED_ID = "c3d1e0f9-7b6a-4c58-9f3e-2d1c0b9a8f7e"
DOMAIN_ID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
BACKUP_ID = "5e0d2c1b-4a39-4287-96f5-e4d3c2b1a090"
FOLDER = f"domains/{DOMAIN_ID}/20260131T220000Z-c3d1e0f9"

REPOSITORY_REQUEST: dict[str, Any] = {
    "name": "nas",
    "path": "/srv/backups",
    "host": "hv1",
    "key": "file:/etc/stillpoint/nas.key",
    "max_transfers": 2,
}
REPOSITORY: dict[str, Any] = {
    "id": REPOSITORY_ID,
    "name": "nas",
    "path": "/srv/backups",
    "host": "hv1",
    "key": "file:/etc/stillpoint/nas.key",
    "max_transfers": 2,
    "reserve_bytes": 1073741824,
    "created_at": "2026-01-30T06:00:00.000000Z",
    "state": "ready",
    "stale": False,
    "error": None,
    "looked_at": "2026-01-31T22:00:00.000000Z",
    "free_bytes": 1610612736000,
    "total_bytes": 2199023255552,
    "format_version": 1,
    "points": 14,
    "check_asked_at": None,
    "import_asked_at": None,
    "imported_at": None,
    "import_result": None,
    "verification": None,
    "links": {
        "self": f"/api/v1/repositories/{REPOSITORY_ID}",
        "recovery_points": f"/api/v1/recovery-points?repository={REPOSITORY_ID}",
        "verification": f"/api/v1/repositories/{REPOSITORY_ID}/verification",
    },
}
FORGOTTEN_REPOSITORY: dict[str, Any] = {"id": REPOSITORY_ID, "name": "nas", "points": 14}

BACKUP_REQUEST: dict[str, Any] = {"kind": "backup", "domain": "db1", "repository": "nas", "level": "auto", "labels": {"plan": "nightly"}}
RESTORE_WORK: dict[str, Any] = {"recovery_point": SEALED_ID, "mode": "new", "name": "db1-restored", "folder": "/var/lib/libvirt/images"}
RESTORE_REQUEST: dict[str, Any] = {"kind": "restore", **RESTORE_WORK, "start": True}
VERIFY_REQUEST: dict[str, Any] = {"kind": "verify", "recovery_point": SEALED_ID}
PRUNE_REQUEST: dict[str, Any] = {"kind": "prune", "recovery_points": [SEALED_ID]}
MERGE_REQUEST: dict[str, Any] = {"kind": "merge", "recovery_points": [SEALED_ID], "remove": True}

#: What differs from a job that waits.
RUNNING_BACKUP: dict[str, Any] = {
    "id": BACKUP_ID,
    "kind": "backup",
    "state": "running",
    "phase": "transfer",
    "progress": {
        "phase": "transfer",
        "disk": "vda",
        "done_bytes": 5368709120,
        "total_bytes": 21474836480,
        "rate_bytes_s": 536870912,
        "seconds_left": 30.0,
        "waiting_for": None,
    },
    "attempt": 1,
    "max_attempts": 10,
    "started_at": "2026-01-31T22:00:00.018000Z",
    "links": {"self": f"/api/v1/jobs/{BACKUP_ID}", "explain": f"/api/v1/jobs/{BACKUP_ID}/explain"},
}
BACKUP_TERMS: dict[str, Any] = {
    "kind": "backup",
    "repository": REPOSITORY_ID,
    "level": "auto",
    "compress": False,
    "compare": "copied",
    "rate_limit_bytes": None,
    "impact_limit_ms": None,
    "pinned": False,
    "new_full": None,
}

SEALED_POINT: dict[str, Any] = {
    "id": SEALED_ID,
    "job_id": BACKUP_ID,
    "kind": "backup",
    "domain": {"id": DOMAIN_ID, "name": "db1"},
    "host": "hv1",
    "state": "sealed",
    "created_at": "2026-01-31T22:01:02.000000Z",
    "point_in_time_at": "2026-01-31T22:00:00.310000Z",
    "verdict": "filesystem",
    "labels": {"plan": "nightly"},
    "pinned": False,
    "retained_until": "2026-03-02T23:00:00.000000Z",
    "repository": REPOSITORY_ID,
    "folder": FOLDER,
    "manifest_digest": "3c1d7e9f5b8a40627f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978",
    "parents": [FULL_ID],
    "is_encrypted": False,
    "is_domain_controller": False,
    "disks": [
        {
            "target": "vda",
            "file": "vda.qcow2",
            "virtual_size": 21474836480,
            "level": "bitmap",
            "reason": "the bitmap of the last point is whole",
            "content": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "blocks_file": "vda.blocks",
            "copied_bytes": 52428800,
            "stored_bytes": 52756480,
            "parent": FULL_ID,
            "parent_folder": f"domains/{DOMAIN_ID}/20260130T220000Z-a90c2f1e",
            "checkpoint": "stillpoint-4b1f7a52-c3d1e0f9",
            "is_compressed": False,
            "is_encrypted": False,
            "source_format": "qcow2",
            "serial": None,
        }
    ],
    "left_out": [{"target": "sda", "reason": "the disk is a CD-ROM"}],
    "proofs": [{"kind": "bytes", "at": "2026-02-01T03:00:00.000000Z", "ok": True, "facts": {"files": 5}, "job_id": None}],
    "size_bytes": 52789248,
    "links": {"self": f"/api/v1/recovery-points/{SEALED_ID}", "job": f"/api/v1/jobs/{BACKUP_ID}"},
}

RESTORE_PLAN: dict[str, Any] = {
    "job": "2c4d6e8f-1a3b-4c5d-8e7f-9a0b1c2d3e4f",
    "is_complete": True,
    "mode": "new",
    "recovery_point": SEALED_ID,
    "host": "hv1",
    "domain": {"id": None, "name": "db1-restored"},
    "disks": [
        {
            "target": "vda",
            "path": "/var/lib/libvirt/images/db1-restored-vda.JOB.qcow2",
            "format": "qcow2",
            "virtual_size": 21474836480,
            "needed_bytes": 5421465600,
            "replaces": None,
        }
    ],
    "files": {"vda": "/var/lib/libvirt/images/db1-restored-vda.JOB.qcow2"},
    "needed_bytes": 5421465600,
    "free_bytes": {"/var/lib/libvirt/images": 429496729600},
    "identity": [
        {"what": "uuid", "fate": "new", "reason": "The domain that was backed up is on host hv1.", "values": {"uuid": None}},
        {"what": "genid", "fate": "absent", "reason": "The definition has no <genid>.", "values": {}},
    ],
    "adaptations": [
        {"what": "machine", "was": "pc-q35-9.2", "becomes": "pc-q35-7.2", "why": "the QEMU of this host does not know the machine"}
    ],
    "warnings": [{"code": "next_backup_is_full", "detail": "The next backup of the restored disks is full."}],
    "stops_domain": False,
    "starts_domain": False,
    "restores_nvram_and_tpm": False,
    "reads_repository_until": "written",
    "bytes_read": "after",
    "relies_on": {"read_at": "2026-02-01T03:00:00.000000Z", "age_s": 61200, "job_id": None},
    "seconds": None,
}
#: What is on record before the job that plans has read the point.
INCOMPLETE_PLAN: dict[str, Any] = {
    **RESTORE_PLAN,
    "is_complete": False,
    "files": None,
    "free_bytes": None,
    "adaptations": [],
    "bytes_read": None,
    "relies_on": None,
}

PROBLEM_FACTS: dict[str, dict[str, Any]] = {
    "policy_not_found": {"policy": "production"},
    "repository_not_found": {"repository": "nas"},
    "key_unusable": {"key": "command:/usr/bin/pass show nas", "reason": "STILLPOINT_KEY_COMMANDS of this host does not name /usr/bin/pass"},
    "repository_taken": {"repository": "nas (/srv/backups on hv1)", "taken_by": "nas (/srv/backups)"},
    "repository_in_use": {"repository": "nas", "points": 14, "jobs": 1, "policies": ["production"]},
    "host_not_named": {"hosts": "hv1, hv2"},
    "restore_refused": {
        "domain": "db1",
        "reason": "the domain is running, and the restore replaces its disks",
        "instead": "Shut the domain down first, or say `stop`.",
    },
    "usn_rollback_risk": {"domain": "dc1"},
    "point_not_sealed": {"point": SEALED_ID},
    "point_damaged": {
        "point": SEALED_ID,
        "path": FOLDER,
        "reason": "a verify found that its bytes are not what was sealed",
        "next_good": FULL_ID,
    },
    "point_unsigned": {"point": SEALED_ID, "folder": FOLDER, "next_good": FULL_ID},
    "point_needed": {"point": FULL_ID, "needed_by": [SEALED_ID]},
    "point_pinned": {"point": SEALED_ID},
    "point_in_use": {"point": SEALED_ID, "jobs": [BACKUP_ID], "domains": []},
    "point_leaving": {"point": SEALED_ID},
    "points_apart": {"points": [FULL_ID, SEALED_ID]},
    "point_below_overlay": {"point": SEALED_ID},
    "point_incomplete": {"point": SEALED_ID, "missing": FULL_ID, "next_good": None},
    "disk_unknown": {"domain": "db1", "disks": "vdx", "known": "vda"},
}
