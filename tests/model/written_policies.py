"""Documents of policies as people write them, and strategies that make many."""

from typing import Any

from hypothesis import strategies as st

from service.model.backup_policy import PROMISED_PROOFS
from service.model.request_limits import DEMANDABLE

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Antarctica/Troll")


def a_job(**more: Any) -> dict[str, Any]:
    return {"kind": "backup", "repository": "main", **more}


def a_schedule(**more: Any) -> dict[str, Any]:
    return {"cron": "0 2 * * *", "time_zone": "Europe/Berlin", **more}


def a_track(name: str = "nightly", **more: Any) -> dict[str, Any]:
    return {"name": name, "job": a_job(), "schedule": a_schedule(), **more}


def a_blackout(begin: str = "08:00", end: str = "18:00", **more: Any) -> dict[str, Any]:
    return {"days": ["mon", "tue", "wed", "thu", "fri"], "from": begin, "to": end, "time_zone": "UTC", **more}


def a_policy(**more: Any) -> dict[str, Any]:
    return {"name": "production", "selector": {"names": ["db-*"]}, "tracks": [a_track()], **more}


EVERYTHING = {
    "name": "production",
    "description": "Databases\nand what belongs to them",
    "paused": True,
    "selector": {"names": ["db-*", "web-1"], "labels": {"tier": "gold"}, "hosts": ["host-a"]},
    "tracks": [
        {
            "name": "nightly",
            "job": {
                "kind": "backup",
                "repository": "main",
                "level": "incremental",
                "compress": True,
                "compare": "everything",
                "rate_limit_bytes": 1 << 20,
                "impact_limit_ms": 50,
                "leave_out": ["vdb", "vdc"],
                "freeze": {
                    "mode": "preferred",
                    "timeout_ms": 1_000,
                    "hold_limit_ms": 2_000,
                    "hold_soft_ms": 500,
                    "preflush": False,
                    "fuse": False,
                },
                "required_verdict": "filesystem",
                "on_shortfall": "retry",
            },
            "schedule": {
                "cron": "0 2 * * *",
                "time_zone": "Europe/Berlin",
                "jitter_s": 600,
                "catch_up": "skip",
                "catch_up_within_s": 3_600,
            },
            "retention": {"keep_last": 7, "keep_daily": 14, "merge_at": 2, "new_full": {"max_depth": 5, "max_ratio": 1.5}},
            "copies": ["offsite", "disk"],
        },
        {"name": "hourly", "job": {"kind": "snapshot"}, "schedule": {"cron": "@", "time_zone": "UTC"}},
    ],
    "blackouts": [{"days": ["mon", "sun"], "from": "22:00", "to": "06:00", "time_zone": "Europe/Berlin"}],
    "limits": {"guests_in_window_per_host": 2, "transfers_per_repository": 3},
    "promise": {"rpo_s": 93_600, "verdict": "filesystem", "proof": {"kind": "bytes", "max_age_s": 2_592_000}},
}
EVERYTHING["tracks"][1]["schedule"]["cron"] = "15 * * * *"  # type: ignore[index]  # the document has several types of values

names = st.text("abcXYZ019-_.", min_size=1, max_size=20).map(lambda text: f"p{text}")
targets = st.lists(st.sampled_from(["vda", "vdb", "sda", "hdc"]), min_size=1, max_size=4, unique=True)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


freezes = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["required", "preferred", "off"]),
        "timeout_ms": st.integers(1_000, 600_000),
        "hold_limit_ms": maybe(st.integers(100, 600_000)),
        "hold_soft_ms": maybe(st.integers(100, 600_000)),
        "preflush": st.booleans(),
        "fuse": st.booleans(),
    },
)
_OF_EACH_KIND: dict[str, st.SearchStrategy[Any]] = {
    "leave_out": maybe(targets),
    "freeze": maybe(freezes),
    "required_verdict": maybe(st.sampled_from(DEMANDABLE)),
    "on_shortfall": st.sampled_from(["keep", "discard", "retry"]),
}
jobs = st.fixed_dictionaries({"kind": st.just("snapshot")}, optional=_OF_EACH_KIND) | st.fixed_dictionaries(
    {"kind": st.just("backup"), "repository": names},
    optional={
        **_OF_EACH_KIND,
        "level": st.sampled_from(["auto", "full", "incremental"]),
        "compress": st.booleans(),
        "compare": st.sampled_from(["nothing", "copied", "everything"]),
        "rate_limit_bytes": maybe(st.integers(1_024, 2**50)),
        "impact_limit_ms": maybe(st.integers(1, 600_000)),
    },
)
crons = st.sampled_from(
    ["0 2 * * *", "30 2 * * *", "*/20 * * * *", "0 * * * *", "15 0,2 * * 1-5", "0,30 2,3 * * *", "0 0 1 * *", "5 */4 * * *", "0 3 L * *"]
)
schedules = st.fixed_dictionaries(
    {"cron": crons, "time_zone": st.sampled_from(ZONES)},
    optional={
        "jitter_s": st.integers(0, 1_100),
        "catch_up": st.sampled_from(["run", "skip"]),
        "catch_up_within_s": st.integers(0, 200_000),
    },
)
retentions = st.fixed_dictionaries({}, optional={"keep_last": st.integers(0, 9), "keep_weekly": st.integers(0, 9)})
times = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
days = st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, max_size=3, unique=True)
blackouts = st.fixed_dictionaries({"days": days, "from": times, "to": times, "time_zone": st.sampled_from(ZONES)}).filter(
    lambda blackout: blackout["from"] != blackout["to"]
)
selectors: st.SearchStrategy[dict[str, Any]] = st.just({"all_the_rest": True}) | st.fixed_dictionaries(
    {"names": st.lists(st.sampled_from(["*", "db-*", "db-1", "db-?", "web[12]"]), min_size=1, max_size=3, unique=True)},
    optional={
        "labels": st.dictionaries(st.sampled_from(["tier", "a/b"]), st.sampled_from(["", "gold"]), min_size=1),
        "hosts": st.just(["host-a"]),
    },
)
policies: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "name": names,
        "selector": selectors,
        "tracks": st.lists(
            st.fixed_dictionaries({"name": names, "job": jobs, "schedule": schedules}, optional={"retention": maybe(retentions)}),
            min_size=1,
            max_size=3,
            unique_by=lambda track: str(track["name"]),
        ),
    },
    optional={
        "description": st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
        "paused": st.booleans(),
        "blackouts": st.lists(blackouts, max_size=2),
        "limits": maybe(st.just({"guests_in_window_per_host": 2})),
        "promise": st.fixed_dictionaries(
            {},
            optional={
                "rpo_s": maybe(st.integers(60, 10**6)),
                "verdict": maybe(st.sampled_from(DEMANDABLE)),
                "proof": maybe(st.fixed_dictionaries({"kind": st.sampled_from(PROMISED_PROOFS), "max_age_s": st.integers(60, 10**6)})),
            },
        ),
    },
)
