"""Which points stay and which go, case by case; and when the next backup has to be full."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.errors import RetentionInvalid
from service.model.retention import Decision, Goes, Group, Point, Stays, Terms, keep, keep_each
from service.model.retention_rules import FullDue, NewFull, Rules, full_is_due
from service.model.verdict import Verdict

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ONE = Rules(keep_last=1)


def point(name: str, hours_ago: float = 0, *parents: str, good: bool = True, **more: Any) -> Point:
    return Point(name, NOW - timedelta(hours=hours_ago), parents, good, **more)


def at(text: str) -> Point:
    return Point(text, datetime.fromisoformat(text).replace(tzinfo=UTC), (), True)


def judged(rules: Rules, *points: Point, zone: str = "UTC") -> dict[str, Decision]:
    return keep(points, rules, NOW, ZoneInfo(zone))


def stay(rules: Rules, *points: Point, zone: str = "UTC") -> set[str]:
    return {name for name, decision in judged(rules, *points, zone=zone).items() if decision.stays}


def test_without_a_rule_every_point_stays_also_with_a_minimum_age() -> None:
    decisions = judged(Rules(minimum_age_s=60), point("old", 1000), point("bad", 2000, good=False))
    assert [decision.codes for decision in decisions.values()] == [{Stays.no_rule}, {Stays.no_rule}]


def test_a_day_that_keep_last_has_filled_is_not_counted_again() -> None:
    points = [point(str(days), days * 24) for days in range(5)]
    assert stay(Rules(keep_last=2, keep_daily=2), *points) == {"0", "1", "2", "3"}


def test_a_kept_point_says_which_period_and_a_gone_one_what_stays_instead() -> None:
    decisions = judged(Rules(keep_daily=1), point("late", 1), point("early", 3), point("old", 100))
    assert decisions["late"].grounds[0].facts == {"number": 1, "wanted": 1, "period": "2026-11-28"}
    assert decisions["early"].grounds[0].as_document() == {
        "code": "replaced",
        "facts": {"by": "late", "rule": "daily", "period": "2026-11-28"},
    }
    assert decisions["old"].codes == {Goes.too_old}


def test_points_with_a_lower_verdict_do_not_push_out_the_last_one_with_the_verdict_that_is_wanted() -> None:
    """The agent has not answered since then."""
    nights = [point(f"crash {n}", n, verdict=Verdict.crash) for n in range(3)]
    nights += [point(f"good {n}", n, verdict=Verdict.filesystem) for n in range(3, 6)]
    terms = Terms(Rules(keep_last=2), ZoneInfo("UTC"), Verdict.filesystem)
    decisions = keep_each(nights, {("", None): terms}, NOW)
    assert {name for name, decision in decisions.items() if decision.stays} == {"crash 0", "crash 1", "good 3"}
    assert decisions["good 3"].codes == {Stays.newest_with_verdict}


def test_a_damaged_point_is_not_the_last_one_with_the_verdict_that_is_wanted() -> None:
    nights = [point("crash", 0, verdict=Verdict.crash), point("damaged", 1, good=False), point("good", 2), point("older", 3)]
    decisions = keep_each(nights, {("", None): Terms(ONE, ZoneInfo("UTC"), Verdict.filesystem)}, NOW)
    assert {name for name, decision in decisions.items() if decision.stays} == {"crash", "good"}


def test_a_day_is_a_day_of_the_zone() -> None:
    evening, night = at("2026-11-20T22:30"), at("2026-11-20T23:30")
    assert stay(Rules(keep_daily=2), evening, night, zone="UTC") == {night.id}
    assert stay(Rules(keep_daily=2), evening, night, zone="Europe/Berlin") == {evening.id, night.id}


def test_the_hour_that_a_clock_repeats_is_one_hour() -> None:
    first, second = at("2026-10-25T00:30"), at("2026-10-25T01:30")
    assert stay(Rules(keep_hourly=2), first, second, zone="Europe/Berlin") == {second.id}


def test_the_week_of_new_year_belongs_to_one_iso_year() -> None:
    assert stay(Rules(keep_weekly=2), at("2025-12-29T12:00"), at("2026-01-02T12:00")) == {"2026-01-02T12:00"}


def test_as_with_proxmox_backup_a_point_that_a_week_passed_over_is_not_the_one_of_its_month() -> None:
    february, end_of_january, january = at("2026-02-01T12:00"), at("2026-01-31T12:00"), at("2026-01-10T12:00")
    rules = Rules(keep_weekly=1, keep_monthly=2)
    assert stay(rules, february, end_of_january, january) == {february.id, january.id}


def test_a_damaged_point_is_not_counted_and_goes() -> None:
    decisions = judged(ONE, point("good", 2), point("bad", 3, good=False), point("newer", 1))
    assert decisions["bad"].codes == {Goes.damaged}
    assert stay(Rules(keep_last=2), point("a", 1), point("bad", 2, good=False), point("b", 3)) == {"a", "b"}


def test_a_point_above_a_damaged_or_missing_one_is_not_counted() -> None:
    points = [point("new", 1), point("above bad", 2, "bad"), point("bad", 3, good=False), point("above none", 4, "none"), point("old", 5)]
    decisions = judged(Rules(keep_last=2), *points)
    assert decisions["above bad"].codes == decisions["above none"].codes == {Goes.needs_damaged}
    assert decisions["old"].stays


def test_a_damaged_point_stays_while_no_newer_whole_point_exists() -> None:
    decisions = judged(ONE, point("bad", 1, "good", good=False), point("good", 2))
    assert decisions["bad"].codes == {Stays.not_replaced}
    assert decisions["good"].codes == {Stays.last, Stays.newest_good, Stays.needed_by}


def test_what_a_kept_point_needs_stays_although_damaged() -> None:
    decisions = judged(ONE, point("new", 1), point("pinned", 2, "bad", pinned=True), point("bad", 3, "full", good=False), point("full", 4))
    assert decisions["bad"].grounds[0].as_document() == {"code": "needed_by", "facts": {"points": ["pinned"]}}
    assert decisions["full"].grounds[0].facts == {"points": ["bad"]}


def test_a_pinned_point_stays_and_takes_no_place() -> None:
    assert stay(ONE, point("pinned", 1, pinned=True), point("new", 2), point("old", 3)) == {"pinned", "new"}


def test_a_young_point_stays_until_its_age_is_reached() -> None:
    rules = Rules(keep_last=1, minimum_age_s=7200)
    assert stay(rules, point("new", 0), point("young", 1.9), point("of age", 2)) == {"new", "young"}


def test_a_point_in_the_future_stays_and_pushes_nothing_out() -> None:
    decisions = judged(ONE, point("future", -1000), point("new", 1), point("old", 2))
    assert decisions["future"].codes == {Stays.in_future}
    assert decisions["new"].codes == {Stays.last, Stays.newest_good}
    assert not decisions["old"].stays


def test_tracks_and_domains_are_judged_apart() -> None:
    points = [point(f"{domain}{track}{n}", n, domain_id=domain, track=track) for domain in "ab" for track in ("x", None) for n in (1, 2)]
    assert stay(ONE, *points) == {"ax1", "aNone1", "bx1", "bNone1"}


def test_each_track_has_its_own_rules_and_need_reaches_over_tracks() -> None:
    points = [point("n1", 1, "w2", track="nightly"), point("n2", 2, track="nightly"), point("w1", 1, track="weekly")]
    points += [point("w2", 2, track="weekly"), point("w3", 3, track="weekly"), point("by hand", 500)]
    zone = ZoneInfo("UTC")
    terms: dict[Group, Terms] = {("", "nightly"): Terms(ONE, zone), ("", "weekly"): Terms(ONE, zone)}
    decisions = keep_each(points, terms, NOW)
    assert {name for name, decision in decisions.items() if decision.stays} == {"n1", "w1", "w2", "by hand"}
    assert decisions["by hand"].codes == {Stays.no_rule}


def test_points_that_need_each_other_in_a_circle_are_not_whole_and_end_nothing() -> None:
    decisions = judged(ONE, point("new", 1), point("a", 2, "b"), point("b", 3, "a"))
    assert decisions["a"].codes == decisions["b"].codes == {Goes.needs_damaged}


class CountedParents(tuple[str, ...]):
    """Counts how often the parents of any point are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        type(self).looks += 1
        return super().__iter__()


def test_the_parents_of_twenty_thousand_points_in_one_chain_are_looked_at_a_fixed_number_of_times() -> None:
    """Work that is counted, as a time would depend on what else the machine does."""
    points = [Point(str(n), NOW - timedelta(hours=n), CountedParents([str(n + 1)] if n < 19_999 else []), True) for n in range(20_000)]
    CountedParents.looks = 0
    assert stay(Rules(7, 24, 14, 8, 12, 5), *points) == {point.id for point in points}
    assert CountedParents.looks <= 3 * len(points)


DOCUMENT = {
    "keep_last": 7,
    "keep_hourly": 0,
    "keep_daily": 14,
    "keep_weekly": 8,
    "keep_monthly": 12,
    "keep_yearly": 0,
    "minimum_age_s": 3600,
    "merge_at": 7,
    "new_full": {"max_depth": None, "max_ratio": 1.5},
}


def test_rules_are_read_again_as_they_were_written() -> None:
    assert Rules.from_document(DOCUMENT).as_document() == DOCUMENT
    assert Rules.from_document({"keep_last": None}) == Rules.from_document(None) == Rules()
    assert Rules.from_document({"new_full": {}}).new_full == NewFull(max_depth=20, max_ratio=None)


def test_a_whole_number_may_be_written_as_json_may_write_it() -> None:
    """JSON does not tell 5.0 from 5. On record it is a whole number."""
    rules = Rules.from_document({"keep_last": 5.0, "minimum_age_s": 3600.0, "new_full": {"max_depth": 7.0}})
    assert json.dumps(rules.as_document()) == json.dumps(Rules(keep_last=5, minimum_age_s=3600, new_full=NewFull(7)).as_document())


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"keep_last": -1}, "keep_last"),
        ({"keep_last": -1.0}, "keep_last"),
        ({"keep_last": float("inf")}, "keep_last"),
        ({"keep_last": float("nan")}, "keep_last"),
        ({"keep_daily": "7"}, "keep_daily"),
        ({"keep_daily": True}, "keep_daily"),
        ({"keep_weekly": 1.5}, "keep_weekly"),
        ({"keep_yearly": 10**9}, "keep_yearly"),
        ({"minimum_age_s": -1}, "minimum_age_s"),
        ({"keep_dayly": 7}, "keep_dayly"),
        ({"merge_at": 0}, "merge_at"),
        ({"merge_at": 21}, "merge_at"),
        ({"new_full": {"max_depth": 0}}, "new_full.max_depth"),
        ({"new_full": {"max_ratio": 0}}, "new_full.max_ratio"),
        ({"new_full": {"max_ratio": float("nan")}}, "new_full.max_ratio"),
        ({"new_full": {"depth": 3}}, "new_full.depth"),
        ({"new_full": 3}, "new_full"),
        ([], "retention"),
    ],
)
def test_a_rule_that_is_not_valid_is_named(document: Any, field: str) -> None:
    with pytest.raises(RetentionInvalid) as raised:
        Rules.from_document(document)
    assert raised.value.facts["field"] == field


@pytest.mark.parametrize(
    ("sizes", "limits", "due"),
    [
        ([], NewFull(1, 0.1), None),
        ([100], NewFull(1, 0.1), None),
        ([100, 1], NewFull(2), None),
        ([100, 1, 1], NewFull(2), FullDue.chain_deep),
        ([100, 50, 50], NewFull(None, 1.0), None),
        ([100, 50, 51], NewFull(None, 1.0), FullDue.chain_large),
        ([100] * 1000, NewFull(None, None), None),
    ],
)
def test_a_full_is_due_when_the_chain_is_deep_or_large(sizes: list[int], limits: NewFull, due: FullDue | None) -> None:
    assert full_is_due(sizes, limits) is due
