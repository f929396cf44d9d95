"""The example of a Windows job: the freeze held, and SQL Server's writer did not keep up."""

from typing import Any

CLASS_ID = "a65faa63-5ea8-4ebc-9dbd-a0c4db26912a"
_TOGETHER = "Steps 1 to 5 took 2140.6 ms together."
_FROZEN = f"The freeze was answered, so this step came before it. {_TOGETHER}"
_THAWED = "Steps 7 and 8 took 187.3 ms together and cannot be told apart."


def _step(number: int, name: str, who: str, observation: str, detail: str, **known: Any) -> dict[str, Any]:
    step = {"step": number, "name": name, "who": who, "observation": observation, "detail": detail}
    return {**step, "limit_ms": None, "limit_source": None, "started_at": None, "duration_ms": None, **known}


def _state(number: int, name: str, last_error: str, error: str | None) -> dict[str, Any]:
    return {"state": number, "state_name": name, "last_error": last_error, "error": error, "failed": error is not None}


_STABLE = _state(1, "stable", "No error", None)

STEPS = [
    _step(
        1,
        "gather_metadata",
        "requester",
        "observed",
        f"Its beginning is the request to freeze. {_TOGETHER}",
        started_at="2026-01-31T22:05:00.410000+00:00",
    ),
    _step(2, "describe_components", "writers", "inferred", _FROZEN),
    _step(3, "notify_writers", "vss", "inferred", _FROZEN),
    _step(4, "prepare_data", "writers", "inferred", _FROZEN),
    _step(
        5,
        "freeze",
        "vss",
        "observed",
        f"Its end is the freeze reply, with 2 volume(s). {_TOGETHER} Whether each writer agreed is not in the reply.",
        limit_ms=60000.0,
        limit_source="Microsoft: writers time out 60 s after Freeze without a Thaw",
    ),
    _step(
        6,
        "create_shadow_copy",
        "provider",
        "observed",
        "The hold lasted 18.4 ms from the freeze reply to the thaw request; the writes were held from a little before. "
        "The host's snapshot is this step; it lies inside the hold.",
        limit_ms=10000.0,
        limit_source="Windows: the kernel (volsnap) releases held writes after 10 s",
        started_at="2026-01-31T22:05:02.550600+00:00",
        duration_ms=18.4,
    ),
    _step(
        7,
        "release_file_system_writes",
        "vss",
        "inferred",
        f"The thaw was answered. {_THAWED}",
        started_at="2026-01-31T22:05:02.569000+00:00",
    ),
    _step(
        8, "thaw_applications", "vss", "inferred", f"The thaw was answered. {_THAWED} Whether each writer succeeded is not in the reply."
    ),
    _step(9, "retry_or_report", "requester", "did_not_happen", "Nothing failed that a retry could mend."),
    _step(
        10,
        "return_location_and_auto_recover",
        "vss",
        "did_not_happen",
        "The agent's provider has no writable copy, so auto-recovery cannot run. The agent asks for a copy without it. Derived, not seen.",
    ),
]

WRITERS = [
    {
        "name": "System Writer",
        "class_id": "e8132975-6f93-4464-a53e-1050253ae220",
        "instance_id": "672313b9-56fa-4abe-91f6-7cc5737738e9",
        "application": "Windows",
        "before": _STABLE,
        "after": _STABLE,
        "change": "unchanged",
        "newly_failed": False,
        "note": None,
    },
    {
        "name": "SqlServerWriter",
        "class_id": CLASS_ID,
        "instance_id": "49dc77af-30e9-49a8-a92b-7fe3283d0838",
        "application": "SQL Server",
        "before": _STABLE,
        "after": _state(9, "failed_at_freeze", "Timed out", "timed_out"),
        "change": "newly_failed",
        "newly_failed": True,
        "note": None,
    },
]

VSS: dict[str, Any] = {
    "applicable": True,
    "outcome": "completed",
    "detail": "VSS held the writes of 2 volume(s) until the thaw and completed.",
    "doubt": None,
    "hresult": None,
    "backup_type": "copy",
    "context": "0x0200002B",
    "steps": STEPS,
    "writers": WRITERS,
    "writers_source": "vssadmin",
    "writers_unavailable_reason": None,
    "sql_server": {
        "is_proof": False,
        "problem": "no_events",
        "databases": [],
        "about": [],
        "instances": None,
        "events": [],
        "detail": "SQL Server reported no freeze of a database (events 3197 and 3198) since this job began.",
    },
    "drift": [],
}

AUTO_RECOVERY: dict[str, Any] = {
    "mode": "disabled_by_requester",
    "source": "derived",
    "on_restore": "recovery_required_at_first_start",
    "context": "0x0200002B",
    "detail": "The guest agent asks VSS for a copy without auto-recovery, so step 10 does not run: applications recover when they "
    "first start from the restored disks.",
    "writers": [
        {"name": "System Writer", "on_restore": "Windows starts as after a power cut."},
        {
            "name": "SqlServerWriter",
            "on_restore": "Runs crash recovery of every database at its start; transactions that were open are rolled back. Logs cannot "
            "be rolled forward through the writer, because the agent saves no writer documents.",
        },
    ],
}

VERDICT_REASONS: list[dict[str, Any]] = [
    {"code": "held", "effect": "lifts", "detail": "The point in time lies inside a hold of 18.4 ms."},
    {
        "code": "writer_newly_failed",
        "effect": "lowers",
        "detail": "SqlServerWriter (SQL Server) failed, and had not failed like this before the freeze: before [1] stable, “No error”, "
        "after [9] failed_at_freeze, “Timed out”. A writer that fails does not vouch for its application: the point is no better than "
        "its filesystems.",
    },
    {
        "code": "sql_server_events",
        "effect": "notes",
        "detail": "SQL Server reported no freeze of a database (events 3197 and 3198) since this job began.",
    },
]

TIMING: dict[str, Any] = {
    "freeze_ms": 2140.6,
    "point_in_time_ms": 17.1,
    "thaw_ms": 187.3,
    "hold_ms": 18.4,
    "window_ms": 2346.3,
    "limits": {"freeze_ms": 120000.0, "hold_ms": 8000.0, "freeze_to_thaw_ms": 60000.0},
    "within_limits": True,
}
