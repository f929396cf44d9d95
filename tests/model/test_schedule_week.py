"""What a policy would do in the next days: its runs, and how many begin in each hour."""

from datetime import timedelta
from typing import Any

from service.model.backup_policy import BackupPolicy
from service.model.schedule import Outcome, Reason
from service.model.schedule_week import Week, week
from service.model.selectors import Domain
from tests.model.test_time_zones import utc
from tests.model.written_policies import a_blackout, a_policy, a_schedule, a_track

MONDAY = utc("2026-06-15 00:00")
DOMAINS = [Domain(f"domain-{n}", f"db-{n}", "host-a", {}) for n in range(3)]


def planned(*tracks: dict[str, Any], days: int = 7, limit: int = 1_000, **more: Any) -> Week:
    policy = BackupPolicy.from_document(a_policy(tracks=list(tracks), **more))
    return week(policy, DOMAINS, MONDAY, MONDAY + timedelta(days=days), limit)


def nightly(name: str = "nightly", **schedule: Any) -> dict[str, Any]:
    return a_track(name, schedule=a_schedule(time_zone="UTC", **schedule))


def test_each_domain_has_each_run_of_the_week() -> None:
    plan = planned(nightly())
    assert [(run.domain.id, f"{run.starts_at:%d %H:%M}") for run in plan.runs] == [
        (domain.id, f"{day} 02:00") for domain in DOMAINS for day in range(15, 22)
    ]
    assert {run.outcome for run in plan.runs} == {Outcome.queued}
    assert plan.left_out == 0


def test_the_begin_is_a_part_of_the_week_and_its_end_is_not() -> None:
    plan = planned(nightly(cron="0 0 * * *"), days=1)
    assert [run.due_at for run in plan.runs] == [MONDAY] * 3


def test_the_load_has_every_hour_and_counts_by_track() -> None:
    plan = planned(nightly(), nightly("hourly", cron="30 */12 * * *"), days=1)
    assert len(plan.load) == 24
    assert {load.hour.hour: load.by_track for load in plan.load if load.starts} == {0: {"hourly": 3}, 2: {"nightly": 3}, 12: {"hourly": 3}}
    assert plan.busiest is not None
    assert (plan.busiest.hour.hour, plan.busiest.starts) == (0, 3)


def test_jitter_spreads_the_load_and_loses_no_run() -> None:
    plan = planned(nightly(cron="50 2 * * *", jitter_s=3_600), days=1)
    assert sum(load.starts for load in plan.load) == 3
    assert len({run.starts_at for run in plan.runs}) == 3


def test_a_run_in_a_blackout_waits_for_its_end_or_is_skipped() -> None:
    windows = [a_blackout("01:00", "05:00", days=["mon"])]
    waits = planned(nightly(), days=2, blackouts=windows)
    assert [f"{run.starts_at:%d %H:%M}" for run in waits.runs[:2]] == ["15 05:00", "16 02:00"]
    skips = planned(nightly(catch_up="skip"), days=2, blackouts=windows)
    assert [(run.outcome, run.reason, run.starts_at is None) for run in skips.runs[:2]] == [
        (Outcome.skipped, Reason.blackout, True),
        (Outcome.queued, None, False),
    ]


def test_a_paused_policy_begins_nothing() -> None:
    plan = planned(nightly(), paused=True)
    assert {run.reason for run in plan.runs} == {Reason.paused}
    assert sum(load.starts for load in plan.load) == 0


def test_domains_beyond_the_limit_are_counted_and_no_domain_is_shown_in_part() -> None:
    plan = planned(nightly(), limit=15)
    assert [run.domain.id for run in plan.runs] == ["domain-0"] * 7 + ["domain-1"] * 7
    assert plan.left_out == 1


def test_a_policy_that_is_never_due_in_the_week_has_an_empty_plan() -> None:
    plan = planned(nightly(cron="0 0 29 2 *"))
    assert plan.runs == ()
    assert plan.busiest is not None
    assert plan.busiest.starts == 0
