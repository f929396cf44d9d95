"""The gate in the examples of the API's documentation."""

from typing import Any

from service.api.schemas.examples import CREATED_AT, FREEZE, JOB, JOB_ID, QUEUED_JOB

QUIESCE_REQUEST: dict[str, Any] = {"deadline_ms": 10000, "labels": {"by": "zfs"}}
RELEASE_REQUEST: dict[str, Any] = {"token": "spg_9Qh3m2Zk0pYtqgN4b7dJxS1vWcLr5uEfA8oKiM6TnHs"}
LINKS = {
    **QUEUED_JOB["links"],
    "release": f"/api/v1/domains/{QUEUED_JOB['domain']['id']}/quiesce/{JOB_ID}/release",
}

OPEN_GATE: dict[str, Any] = {
    "job": {"id": JOB_ID, "links": LINKS},
    "token": RELEASE_REQUEST["token"],
    "state": "open",
    "opened_at": "2026-01-31T22:00:00.121000Z",
    "deadline_at": "2026-01-31T22:00:10.119000Z",
    "hold_budget_ms": 9981.4,
    "filesystems_frozen": 2,
}
OPENING_GATE: dict[str, Any] = {
    **OPEN_GATE,
    "state": "opening",
    "opened_at": None,
    "deadline_at": None,
    "hold_budget_ms": None,
    "filesystems_frozen": None,
}
GATE_JOB: dict[str, Any] = {
    **JOB,
    "kind": "quiesce",
    "max_attempts": 1,
    "created_at": CREATED_AT,
    "labels": QUIESCE_REQUEST["labels"],
    "request": {
        "kind": "quiesce",
        "domain": "db1",
        "host": None,
        "freeze": {**FREEZE, "hold_limit_ms": QUIESCE_REQUEST["deadline_ms"]},
        "required_verdict": None,
    },
    "recovery_point": None,
    "result": {
        "opened_at": OPEN_GATE["opened_at"],
        "released_at": "2026-01-31T22:00:02.310000Z",
        "hold_budget_ms": QUIESCE_REQUEST["deadline_ms"],
        "held": True,
    },
}
RELEASED: dict[str, Any] = {"held": True, "job": GATE_JOB}
RELEASING: dict[str, Any] = {"held": None, "job": {**GATE_JOB, "state": "running", "result": None, "verdict": None, "verdict_reasons": []}}
