"""What holds for every set of points and rules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.chains import ancestors
from service.model.retention import Point, Stays, keep
from service.model.retention_rules import Rule, Rules
from tests.model.prune_of_proxmox import kept_by_prune

MANY = settings(max_examples=300)
NOW = datetime(2026, 11, 28, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
#: Berlin and New York change by an hour, Lord Howe by half an hour; Sao Paulo changed at midnight; Samoa left out a day in 2011.
ZONES = [
    ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia")
]
#: Around changes of clocks, of months within a week, and of the years of ISO weeks.
AROUND = [datetime(*day, tzinfo=UTC) for day in ((2026, 10, 25), (2026, 3, 29), (2026, 11, 1), (2018, 2, 18), (2011, 12, 31), (2021, 1, 1))]
FINE = (Rule.last, Rule.hourly, Rule.daily)

any_zone = st.sampled_from(ZONES)
near_a_change = st.builds(lambda around, minutes: around + timedelta(minutes=minutes), st.sampled_from(AROUND), st.integers(-2_000, 2_000))
far_apart = st.builds(lambda minutes: NOW - timedelta(minutes=minutes), st.integers(0, 3 * 366 * 1440))
days_apart = st.builds(lambda hours: NOW - timedelta(hours=hours), st.integers(0, 60 * 24))
any_time = near_a_change | far_apart | days_apart
any_times = st.sets(any_time, min_size=1, max_size=40).map(sorted)


@st.composite
def any_rules(draw: st.DrawFn, *, without: frozenset[Rule] = frozenset()) -> Rules:
    """At least one rule keeps something."""
    numbers = {f"keep_{rule}": 0 if rule in without else draw(st.integers(0, 5)) for rule in Rule}
    if not any(numbers.values()):
        numbers["keep_last"] = 1
    return Rules.from_document({**numbers, "minimum_age_s": draw(st.sampled_from([0, 0, 86_400, 30 * 86_400]))})


@st.composite
def nested_rules(draw: st.DrawFn) -> Rules:
    """Each period lies within one period of every later rule: a week does not lie within one month or year."""
    weeks_or_months = st.sampled_from([frozenset({Rule.weekly}), frozenset({Rule.monthly, Rule.yearly})])
    return draw(any_rules(without=draw(weeks_or_months)))


@st.composite
def any_points(draw: st.DrawFn, *, all_good: bool = False) -> list[Point]:
    """Points of three groups; each needs up to two older points, and perhaps one that is missing."""
    points: list[Point] = []
    for n, at in enumerate(draw(any_times)):
        older = st.sets(st.sampled_from([point.id for point in points]), max_size=2) if points else st.just(set())
        parents = [] if draw(st.booleans()) else sorted(draw(older))
        if not all_good and draw(st.integers(0, 19)) == 0:
            parents.append("missing")
        domain, track = draw(st.sampled_from([("a", None), ("a", "nightly"), ("b", "nightly")]))
        is_good = all_good or draw(st.integers(0, 4)) > 0
        is_pinned = draw(st.integers(0, 9)) == 0
        points.append(Point(f"p{n}", at, tuple(parents), is_good, domain_id=domain, track=track, pinned=is_pinned))
    return points


def kept(points: list[Point], rules: Rules, now: datetime = NOW, zone: ZoneInfo = BERLIN) -> set[str]:
    return {point_id for point_id, decision in keep(points, rules, now, zone).items() if decision.stays}


@settings(max_examples=1000)
@given(any_times, any_rules(), any_zone)
def test_good_points_stay_as_with_prune_of_proxmox_backup(times: list[datetime], rules: Rules, zone: ZoneInfo) -> None:
    points = [Point(at.isoformat(), at, (), True) for at in times]
    expected = kept_by_prune(times, {str(rule): rules.wanted(rule) for rule in Rule}, zone)
    chosen_by_rules = set(Rule)
    decisions = keep(points, rules, NOW, zone)
    assert {point.at for point in points if decisions[point.id].codes & chosen_by_rules} == expected
    if not rules.minimum_age_s:
        assert {point.at for point in points if decisions[point.id].stays} == expected | {max(times)}


@MANY
@given(any_times, any_rules(), any_zone)
def test_the_newest_point_is_always_chosen_by_a_rule(times: list[datetime], rules: Rules, zone: ZoneInfo) -> None:
    """So the guard for the newest good point never changes the result of good points."""
    points = [Point(at.isoformat(), at, (), True) for at in times]
    assert keep(points, rules, NOW, zone)[max(times).isoformat()].codes & set(Rule)


FORMATS = {Rule.last: "%s%f", Rule.hourly: "%Y%m%d%H", Rule.daily: "%Y%m%d", Rule.weekly: "%G%V", Rule.monthly: "%Y%m", Rule.yearly: "%Y"}


@MANY
@given(any_points(), nested_rules(), any_zone)
def test_never_fewer_periods_are_kept_than_asked(points: list[Point], rules: Rules, zone: ZoneInfo) -> None:
    stay = kept(points, rules, zone=zone)
    known = {point.id: point for point in points}
    whole = [point for point in points if all(p in known and known[p].is_good for p in {point.id, *ancestors(point.id, known)})]
    for group in {point.group for point in points}:
        counted = [point for point in whole if point.group == group and not point.pinned]
        for rule in Rule:
            there = {point.at.astimezone(zone).strftime(FORMATS[rule]) for point in counted}
            remain = {point.at.astimezone(zone).strftime(FORMATS[rule]) for point in counted if point.id in stay}
            assert len(remain) >= min(rules.wanted(rule), len(there))


@MANY
@given(any_points(), nested_rules(), any_zone, st.data())
def test_more_rules_and_larger_numbers_never_remove_more(points: list[Point], rules: Rules, zone: ZoneInfo, data: st.DataObject) -> None:
    names = [f"keep_{rule}" for rule in Rule if rules.wanted(rule)] + [f"keep_{rule}" for rule in FINE] + ["minimum_age_s"]
    name = data.draw(st.sampled_from(names))
    larger = replace(rules, **{name: getattr(rules, name) + data.draw(st.integers(1, 5))})
    assert kept(points, rules, zone=zone) <= kept(points, larger, zone=zone)


@MANY
@given(any_points(), any_rules())
def test_all_that_a_kept_point_needs_stays(points: list[Point], rules: Rules) -> None:
    known = {point.id: point for point in points}
    stay = kept(points, rules)
    for point_id in stay:
        assert ancestors(point_id, known) & known.keys() <= stay


@MANY
@given(any_points(), any_rules(), any_zone)
def test_a_second_prune_removes_nothing(points: list[Point], rules: Rules, zone: ZoneInfo) -> None:
    stay = kept(points, rules, zone=zone)
    assert kept([point for point in points if point.id in stay], rules, zone=zone) == stay


@MANY
@given(any_points(), nested_rules(), any_zone, st.integers(0, 100_000), st.booleans())
def test_a_newer_point_brings_back_no_point_that_was_gone(
    points: list[Point], rules: Rules, zone: ZoneInfo, minutes: int, good: bool
) -> None:
    newest = max(point.at for point in points)
    later = newest + timedelta(minutes=minutes + 1)
    newer = Point("newer", later, (), good, domain_id="a", track="nightly")
    gone = {point.id for point in points} - kept(points, rules, now=newest, zone=zone)
    assert not gone & kept([*points, newer], rules, now=later, zone=zone)


@MANY
@given(any_points(), any_rules(), st.randoms())
def test_the_order_of_the_points_does_not_matter(points: list[Point], rules: Rules, random: object) -> None:
    mixed = list(points)
    random.shuffle(mixed)  # type: ignore[attr-defined]  # hypothesis gives random.Random
    assert keep(mixed, rules, NOW, BERLIN) == keep(points, rules, NOW, BERLIN)


@MANY
@given(any_points(), any_rules())
def test_every_group_keeps_its_newest_whole_point_and_every_pinned_one(points: list[Point], rules: Rules) -> None:
    decisions = keep(points, rules, NOW, BERLIN)
    for group in {point.group for point in points}:
        members = [point.id for point in points if point.group == group]
        kept_members = [point_id for point_id in members if decisions[point_id].codes & {Stays.newest_good, Stays.not_replaced}]
        assert kept_members
    assert all(decisions[point.id].stays for point in points if point.pinned)
