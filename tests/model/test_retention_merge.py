"""Which points are merged: those that no rule keeps and that others need, when a chain has enough of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.chains import ancestors
from service.model.retention import Decision, Goes, Ground, Group, Point, Stays, Terms, keep, keep_each
from service.model.retention_rules import MAX_MERGE_AT, Rules
from tests.model.test_retention_properties import any_points, any_rules

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
#: Each point, and how many hours ago it was taken: four that lie upon each other.
CHAIN = (("full", 4, ()), ("low", 3, ("full",)), ("high", 2, ("low",)), ("top", 1, ("high",)))
LAST_TWO = Rules(keep_last=2, merge_at=1)


def chain(**more: dict[str, Any]) -> list[Point]:
    """`more`: fields of a point, by its name."""
    return [Point(name, NOW - timedelta(hours=hours), parents, **{"is_good": True, **more.get(name, {})}) for name, hours, parents in CHAIN]


def judged(rules: Rules, points: list[Point]) -> dict[str, Decision]:
    return keep(points, rules, NOW, UTC_ZONE)


def merged(rules: Rules, points: list[Point]) -> set[str]:
    return {name for name, decision in judged(rules, points).items() if Goes.merged in decision.codes}


def test_what_only_others_need_is_merged_into_them() -> None:
    decisions = judged(LAST_TWO, chain())
    assert [decisions[name].stays for name in ("full", "low", "high", "top")] == [False, False, True, True]
    assert decisions["low"].grounds[0].as_document() == {"code": "merged", "facts": {"points": ["high"]}}


def test_without_the_rule_the_points_stay_as_long_as_they_are_needed() -> None:
    decisions = judged(replace(LAST_TWO, merge_at=None), chain())
    assert decisions["full"].codes == {Stays.needed_by}


def test_a_merge_waits_until_the_chain_has_enough_of_them() -> None:
    assert merged(Rules(keep_last=2, merge_at=2), chain()) == {"full", "low"}
    assert merged(Rules(keep_last=2, merge_at=3), chain()) == set()


def test_points_that_lie_apart_in_one_chain_count_together() -> None:
    """Otherwise the days between two kept weeks would never be enough."""
    points = chain(low={"pinned": True})
    assert merged(Rules(keep_last=1, merge_at=2), points) == {"full", "high"}


def test_two_chains_are_counted_apart() -> None:
    other = [Point("other", NOW - timedelta(hours=9), (), True), Point("above", NOW, ("other",), True)]
    assert merged(Rules(keep_last=3, merge_at=2), [*chain(), *other]) == {"full", "low"}
    assert merged(Rules(keep_last=4, merge_at=2), [*chain(), *other]) == set()


def test_what_anything_else_keeps_is_not_merged() -> None:
    assert merged(LAST_TWO, chain(full={"pinned": True})) == {"low"}
    assert merged(replace(LAST_TWO, minimum_age_s=4 * 3600 - 1), chain()) == {"full"}


def test_nothing_is_merged_into_a_damaged_point_or_from_one() -> None:
    new = Point("new", NOW, (), True)
    assert merged(LAST_TWO, [*chain(low={"is_good": False}, top={"pinned": True}), new]) == set()
    assert merged(Rules(keep_last=1, merge_at=1), [*chain(top={"is_good": False, "pinned": True}), new]) == {"full", "low"}


def test_the_track_of_the_point_says_whether_it_is_merged() -> None:
    """Also where a point of another track stands on it."""
    points = [replace(point, track="nightly" if point.id in ("full", "low") else "weekly") for point in chain()]
    # The newest point of each track stays in any case.
    one_merges: dict[Group, Terms | Ground] = {
        ("", "nightly"): Terms(Rules(keep_last=1, merge_at=1), UTC_ZONE),
        ("", "weekly"): Terms(Rules(keep_last=2), UTC_ZONE),
    }
    assert {each for each, decision in keep_each(points, one_merges, NOW).items() if Goes.merged in decision.codes} == {"full"}
    other_merges: dict[Group, Terms | Ground] = {
        ("", "nightly"): Terms(Rules(keep_last=1), UTC_ZONE),
        ("", "weekly"): Terms(Rules(keep_last=2, merge_at=1), UTC_ZONE),
    }
    assert all(Goes.merged not in decision.codes for decision in keep_each(points, other_merges, NOW).values())


@settings(max_examples=300)
@given(any_points(), any_rules(), st.integers(1, MAX_MERGE_AT))
def test_a_merge_takes_only_what_was_kept_for_others_and_everything_else_stays_as_it_is(
    points: list[Point], rules: Rules, merge_at: int
) -> None:
    before, after = judged(rules, points), judged(replace(rules, merge_at=merge_at), points)
    gone = {each for each, decision in after.items() if Goes.merged in decision.codes}
    assert all(before[each].codes == {Stays.needed_by} for each in gone)
    assert all(after[each] == before[each] for each in before if each not in gone)


@settings(max_examples=300)
@given(any_points(), any_rules())
def test_every_point_that_takes_over_is_whole(points: list[Point], rules: Rules) -> None:
    known = {point.id: point for point in points}
    after = judged(replace(rules, merge_at=1), points)
    for point in points:
        takes = [each for each in point.parents if each in after and Goes.merged in after[each].codes]
        if takes and (after[point.id].stays or Goes.merged in after[point.id].codes):
            assert all(each in known and known[each].is_good for each in {point.id, *ancestors(point.id, known)})
