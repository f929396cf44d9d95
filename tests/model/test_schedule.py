"""What becomes of each due instant: worked examples. `at`: on days of June 2026 in UTC, unless a date says otherwise."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.model.blackouts import Blackout
from service.model.schedule import (
    JUMP,
    JUMP_BELIEVED_S,
    ON_TIME,
    Decision,
    Outcome,
    Reason,
    Run,
    Standing,
    begin,
    decide,
    give_up,
    is_clock_believed,
    jitter_of,
    key_of,
    start_of,
)
from service.model.schedule_rule import CatchUp, ScheduleRule
from tests.model.test_blackouts import a_blackout
from tests.model.test_time_zones import utc

KEY = key_of("nightly", "domain-1")
NIGHTLY = ScheduleRule("0 2 * * *", "UTC")
OFFICE_HOURS = a_blackout("08:00", "18:00")


def at(text: str) -> datetime:
    return utc(f"2026-06-{text}" if text[2] == " " else text)


def rule(cron: str = "0 2 * * *", zone: str = "UTC", **more: Any) -> ScheduleRule:
    return ScheduleRule(cron, zone, **more)


def standing(next_due_at: str, **more: Any) -> Standing:
    return Standing(KEY, at(next_due_at), **more)


def look(
    now: str, next_due_at: str, asked: ScheduleRule = NIGHTLY, blackouts: Collection[Blackout] = (), limit: int = 1_000, **more: Any
) -> Decision:
    return decide(asked, tuple(blackouts), standing(next_due_at, **more), at(now), limit)


def outcomes(decision: Decision) -> list[tuple[str, str]]:
    """The instant of each run with its reason, or its outcome where there is none."""
    return [(f"{run.due_at:%d %H:%M}", (run.reason or run.outcome).value) for run in decision.runs]


def shown(instant: datetime | None) -> str | None:
    return f"{instant:%d %H:%M}" if instant is not None else None


# --- on time --------------------------------------------------------------------------------------


def test_nothing_happens_before_a_run_is_due() -> None:
    decision = look("15 01:59", "15 02:00")
    assert (decision.runs, shown(decision.next_due_at), shown(decision.fire_at)) == ((), "15 02:00", "15 02:00")


def test_a_run_begins_at_its_instant_and_the_next_one_is_waited_for() -> None:
    decision = look("15 02:00", "15 02:00")
    assert outcomes(decision) == [("15 02:00", "queued")]
    assert (shown(decision.next_due_at), shown(decision.fire_at), decision.has_more) == ("16 02:00", "16 02:00", False)


def test_a_run_waits_for_its_jitter_and_keeps_its_instant() -> None:
    asked = rule(jitter_s=3_600)
    start = start_of(asked, (), KEY, at("15 02:00")).at
    assert at("15 02:00") < start < at("15 03:00")
    before = decide(asked, (), standing("15 02:00"), start - timedelta(milliseconds=1))
    assert (before.runs, before.next_due_at, before.fire_at) == ((), at("15 02:00"), start)
    after = decide(asked, (), standing("15 02:00"), start)
    assert outcomes(after) == [("15 02:00", "queued")]


def test_the_jitter_is_below_its_limit_and_differs_between_domains_and_nights() -> None:
    keys, nights = [key_of("nightly", f"domain-{n}") for n in range(50)], [at("15 02:00") + timedelta(days=n) for n in range(50)]
    over_domains = [jitter_of(key, nights[0], 600) for key in keys]
    over_nights = [jitter_of(keys[0], night, 600) for night in nights]
    for jitters in (over_domains, over_nights):
        assert all(timedelta() <= jitter < timedelta(seconds=600) for jitter in jitters)
        assert len({jitter // timedelta(seconds=60) for jitter in jitters}) == 10
    assert jitter_of(keys[0], nights[0], 0) == timedelta()


@pytest.mark.parametrize(
    ("asked", "instants"),
    [
        # The night on which the clocks go forward has one run, and the night on which they go back has one, too.
        (rule("30 2 * * *", "Europe/Berlin"), ["2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"]),
        (rule("30 2 * * *", "Europe/Berlin"), ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"]),
        (rule("15 2 * * *", "Australia/Lord_Howe"), ["2026-10-02 15:45", "2026-10-03 15:30", "2026-10-04 15:15"]),
        (rule("45 1 * * *", "Australia/Lord_Howe"), ["2026-04-03 14:45", "2026-04-04 14:45", "2026-04-05 15:15"]),
    ],
)
def test_a_night_with_a_clock_change_has_one_run(asked: ScheduleRule, instants: list[str]) -> None:
    decision = begin(asked, (), KEY, at(instants[0]) - timedelta(seconds=1))
    for instant in instants:
        assert decision.next_due_at == at(instant)
        decision = decide(asked, (), Standing(KEY, decision.next_due_at), at(instant))
        assert [(run.due_at, run.outcome) for run in decision.runs] == [(at(instant), Outcome.queued)]


# --- after an absence -----------------------------------------------------------------------------


def test_after_an_absence_only_the_newest_run_begins_and_the_others_were_missed() -> None:
    decision = look("18 09:00", "15 02:00")
    assert outcomes(decision) == [("15 02:00", "newer_due"), ("16 02:00", "newer_due"), ("17 02:00", "newer_due"), ("18 02:00", "queued")]
    assert [run.outcome for run in decision.runs] == [Outcome.missed] * 3 + [Outcome.queued]
    assert decision.runs[0].facts == {"newer_due_at": at("16 02:00").isoformat()}
    assert shown(decision.next_due_at) == "19 02:00"


def test_a_run_that_is_later_than_the_rule_allows_was_missed() -> None:
    asked = rule(catch_up_within_s=3_600)
    assert outcomes(look("15 03:00", "15 02:00", asked)) == [("15 02:00", "queued")]
    decision = look("15 03:00:01", "15 02:00", asked)
    assert outcomes(decision) == [("15 02:00", "too_late")]
    assert (decision.runs[0].outcome, decision.runs[0].facts) == (Outcome.missed, {"late_s": 3_601})


@pytest.mark.parametrize("asked", [rule(catch_up=CatchUp.skip), rule(catch_up_within_s=0)])
def test_a_restart_of_minutes_loses_nothing_also_where_nothing_is_caught_up(asked: ScheduleRule) -> None:
    assert outcomes(decide_late(asked, ON_TIME)) == [("15 02:00", "queued")]
    assert outcomes(decide_late(asked, ON_TIME + timedelta(seconds=1))) == [("15 02:00", "too_late")]


def decide_late(asked: ScheduleRule, late: timedelta) -> Decision:
    return decide(asked, (), standing("15 02:00"), at("15 02:00") + late)


def test_lateness_counts_from_the_start_and_not_from_the_instant() -> None:
    asked = rule(jitter_s=7_200, catch_up=CatchUp.skip)
    start = start_of(asked, (), KEY, at("15 02:00")).at
    assert start > at("15 02:00") + ON_TIME
    assert outcomes(decide(asked, (), standing("15 02:00"), start + ON_TIME)) == [("15 02:00", "queued")]


def test_many_missed_runs_are_decided_in_several_looks() -> None:
    asked, now, seen = rule("*/10 * * * *"), "15 04:05", []
    decision = look(now, "15 02:00", asked, limit=5)
    while decision.has_more:
        assert len(decision.runs) == 5
        assert decision.fire_at == decision.next_due_at
        seen += outcomes(decision)
        decision = decide(asked, (), Standing(KEY, decision.next_due_at), at(now), 5)
    seen += outcomes(decision)
    assert [reason for _, reason in seen] == ["newer_due"] * 12 + ["queued"]
    assert shown(decision.next_due_at) == "15 04:10"


# --- blackouts ------------------------------------------------------------------------------------


def test_a_run_that_is_due_in_a_blackout_waits_for_its_end() -> None:
    asked = rule("0 9 * * *")
    decision = look("15 09:00", "15 09:00", asked, [OFFICE_HOURS])
    assert (decision.runs, shown(decision.next_due_at), shown(decision.fire_at)) == ((), "15 09:00", "15 18:00")
    assert outcomes(look("15 18:00", "15 09:00", asked, [OFFICE_HOURS])) == [("15 09:00", "queued")]


def test_a_run_that_is_due_in_a_blackout_is_skipped_where_nothing_is_caught_up() -> None:
    asked = rule("0 9 * * *", catch_up=CatchUp.skip)
    decision = look("15 09:00", "15 09:00", asked, [OFFICE_HOURS])
    assert outcomes(decision) == [("15 09:00", "blackout")]
    assert decision.runs[0].outcome is Outcome.skipped
    assert shown(decision.next_due_at) == "16 09:00"


def test_of_the_runs_of_one_blackout_the_last_one_waits_for_its_end() -> None:
    asked = rule("30 * * * *")
    decision = look("15 17:45", "15 16:30", asked, [OFFICE_HOURS])
    assert outcomes(decision) == [("15 16:30", "blackout")]
    assert (shown(decision.next_due_at), shown(decision.fire_at)) == ("15 17:30", "15 18:00")


def test_a_run_that_waits_for_the_end_of_a_blackout_does_not_delay_the_next_one() -> None:
    """The run of 17:30 would begin after 18:00 with its jitter. The run of 18:00 begins at its own time, which may be earlier."""
    asked = rule("*/30 * * * *", jitter_s=900)
    decision = look("15 17:30", "15 17:30", asked, [OFFICE_HOURS])
    assert (decision.runs, shown(decision.fire_at)) == ((), "15 18:00")
    start = start_of(asked, [OFFICE_HOURS], KEY, at("15 18:00")).at
    decision = look("15 18:00", "15 17:30", asked, [OFFICE_HOURS])
    assert (outcomes(decision), decision.fire_at) == ([("15 17:30", "blackout")], start)


def test_the_guests_of_a_blackout_do_not_all_begin_at_its_end() -> None:
    asked = rule("0 9 * * *", jitter_s=600)
    starts = {start_of(asked, [OFFICE_HOURS], key_of("nightly", f"domain-{n}"), at("15 09:00")).at for n in range(20)}
    assert all(at("15 18:00") <= start < at("15 18:10") for start in starts)
    assert len(starts) > 15


def test_a_service_that_comes_back_in_a_blackout_waits_for_its_end() -> None:
    decision = look("15 10:00", "15 02:00", blackouts=[OFFICE_HOURS])
    assert (decision.runs, shown(decision.fire_at)) == ((), "15 18:00")
    assert outcomes(look("15 18:00", "15 02:00", blackouts=[OFFICE_HOURS])) == [("15 02:00", "queued")]


# --- what stands in the way -----------------------------------------------------------------------


@pytest.mark.parametrize("obstacle", [Reason.paused, Reason.domain_gone, Reason.tie])
def test_whatever_is_due_while_something_stands_in_the_way_is_skipped(obstacle: Reason) -> None:
    decision = look("17 02:00", "15 02:00", obstacle=obstacle)
    assert outcomes(decision) == [(f"{day} 02:00", obstacle.value) for day in (15, 16, 17)]
    assert {run.outcome for run in decision.runs} == {Outcome.skipped}


def test_a_run_is_skipped_while_the_one_before_it_has_not_ended() -> None:
    decision = look("15 02:00", "15 02:00", running_job="job-1")
    assert outcomes(decision) == [("15 02:00", "still_running")]
    assert decision.runs[0].facts == {"job_id": "job-1"}


def test_a_run_that_is_too_late_was_missed_also_while_the_one_before_it_has_not_ended() -> None:
    assert outcomes(look("15 09:00", "15 02:00", rule(catch_up=CatchUp.skip), running_job="job-1")) == [("15 02:00", "too_late")]


def test_what_is_due_and_has_not_begun_is_given_up_and_what_comes_begins_again() -> None:
    decision = give_up(NIGHTLY, standing("15 02:00"), Reason.policy_changed, at("16 08:00"))
    assert outcomes(decision) == [("15 02:00", "policy_changed"), ("16 02:00", "policy_changed")]
    assert decision.next_due_at is None
    assert shown(begin(rule("0 3 * * *"), (), KEY, at("16 08:00")).next_due_at) == "17 03:00"
    assert give_up(NIGHTLY, standing("17 02:00"), Reason.policy_changed, at("16 08:00")).runs == ()


def test_a_job_that_could_not_be_made_is_a_run_that_was_refused_with_its_error() -> None:
    run = Run(at("15 02:00"), Outcome.queued).refused({"code": "domain_unknown"})
    assert (run.outcome, run.reason, run.facts) == (Outcome.skipped, Reason.refused, {"error": {"code": "domain_unknown"}})


# --- clocks ---------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_finds_nothing_due() -> None:
    assert look("14 02:00", "15 02:00").runs == ()


def test_an_instant_that_has_its_outcome_is_not_decided_again() -> None:
    decided = [at("16 02:00"), at("17 02:00")]
    decision = look("17 02:00", "15 02:00", decided=decided)
    assert outcomes(decision) == [("15 02:00", "newer_due")]
    assert shown(decision.next_due_at) == "18 02:00"
    assert shown(begin(NIGHTLY, (), KEY, at("15 03:00"), decided).next_due_at) == "18 02:00"


def test_an_instant_that_a_newer_time_zone_database_does_not_name_any_more_is_decided() -> None:
    """A land that ends its summer time: what was promised for 01:00 UTC is not lost, although the rule now says 00:00."""
    decision = look("15 01:00", "15 01:00", rule("0 0 * * *"))
    assert outcomes(decision) == [("15 01:00", "queued")]
    assert shown(decision.next_due_at) == "16 00:00"


def test_a_rule_that_names_no_further_instant_waits_for_ever() -> None:
    decision = decide(NIGHTLY, (), Standing(KEY, None), at("15 02:00"))
    assert (decision.runs, decision.next_due_at, decision.fire_at) == ((), None, None)


def test_a_clock_that_has_jumped_is_believed_after_it_has_lasted() -> None:
    last = at("15 02:00")
    assert is_clock_believed(None, last, 0)
    assert is_clock_believed(last, last + JUMP, 0)
    for jump in (JUMP, -JUMP):
        later = last + jump * 1.01
        assert not is_clock_believed(last, later, JUMP_BELIEVED_S - 1)
        assert is_clock_believed(last, later, JUMP_BELIEVED_S)
