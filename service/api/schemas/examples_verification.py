"""The examples of verification by plan, in the story of `examples`."""

from typing import Any

from service.api.schemas.examples_repository import DOMAIN_ID, FULL_ID, SEALED_ID

BUDGET: dict[str, Any] = {
    "bytes_per_day": 1099511627776,
    "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    "from": "22:00",
    "to": "06:00",
    "time_zone": "Europe/Berlin",
    "checks": ["bytes", "structure", "filesystem"],
    "rate_limit_bytes": None,
}
VERIFICATION: dict[str, Any] = {
    "budget": BUDGET,
    "may_begin": True,
    "left_bytes": 1052266987520,
    "spent_today_bytes": 47244640256,
    "next": [
        {
            "recovery_point": SEALED_ID,
            "domain_id": DOMAIN_ID,
            "why": "missing",
            "cost_bytes": 51539607552,
            "due_at": None,
            "proven_at": None,
        }
    ],
    "runs": [
        {
            "number": 12,
            "recovery_point": FULL_ID,
            "domain_id": DOMAIN_ID,
            "job_id": "8d0e4c1a-1f8b-4f2d-9a53-0c6f6e8a2b11",
            "why": "old",
            "begun_at": "2026-01-31T21:00:00.000000Z",
            "cost_bytes": 51539607552,
            "read_bytes": 47244640256,
            "took_ms": 171000,
            "outcome": "good",
        }
    ],
}
