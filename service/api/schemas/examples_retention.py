"""Examples of retention, for the OpenAPI document."""

from typing import Any

from service.api.schemas.examples_repository import DOMAIN_ID, FULL_ID, REPOSITORY_ID, SEALED_ID

RULES: dict[str, Any] = {"keep_last": 2, "keep_daily": 14}
QUESTION: dict[str, Any] = {"domain": "db1", "rules": RULES}
_OF_DB1: dict[str, Any] = {
    "domain": {"id": DOMAIN_ID, "name": "db1"},
    "repository": REPOSITORY_ID,
    "policy": "production",
    "track": "nightly",
}
PREVIEW: dict[str, Any] = {
    "at": "2026-02-01T06:00:00.000000Z",
    "goes": 1,
    "stays": 1,
    "goes_bytes": 2147483648,
    "counts": [
        {"decision": "goes", "code": "replaced", "points": 1, "size_bytes": 2147483648},
        {"decision": "stays", "code": "last", "points": 1, "size_bytes": 2415919104},
    ],
    "points": [
        {
            "id": SEALED_ID,
            **_OF_DB1,
            "point_in_time_at": "2026-01-31T22:00:00.000000Z",
            "size_bytes": 2415919104,
            "decision": "stays",
            "may_go_at": None,
            "reasons": [
                {"code": "last", "facts": {"number": 1, "wanted": 2}, "text": "it is number 1 of the 2 that keep_last keeps"},
                {"code": "newest_good", "facts": {}, "text": "it is the newest good point of its track"},
            ],
        },
        {
            "id": FULL_ID,
            **_OF_DB1,
            "point_in_time_at": "2026-01-31T10:00:00.000000Z",
            "size_bytes": 2147483648,
            "decision": "goes",
            "may_go_at": "2026-02-01T06:00:00.000000Z",
            "reasons": [
                {
                    "code": "replaced",
                    "facts": {"by": SEALED_ID, "rule": "daily", "period": "2026-01-31"},
                    "text": "a newer point of 2026-01-31 stays, by keep_daily",
                }
            ],
        },
    ],
}
