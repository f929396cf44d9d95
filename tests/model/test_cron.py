"""The instants that a cron expression names: each of them once, also across the changes of the clocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import cron
from service.model.cron import NotCron, between, next_of, parsed
from service.model.time_zones import zone_of
from tests.model.test_time_zones import ZONES, utc

MICROSECOND = timedelta(microseconds=1)
BERLIN = "Europe/Berlin"
CHANGES = [
    date(2011, 12, 30),
    date(2026, 3, 8),
    date(2026, 3, 29),
    date(2026, 4, 5),
    date(2026, 10, 4),
    date(2026, 10, 25),
    date(2026, 11, 1),
    date(2026, 6, 15),
]
"""Days on which the clocks of one of the zones change, and one on which none does."""


def due(expression: str, zone: str, begin: str, until: str) -> list[str]:
    """The instants from `begin` to `until`, both in UTC, as UTC."""
    instants = between(expression, zone, utc(begin) - MICROSECOND, utc(until))
    return [f"{instant:%m-%d %H:%M}" for instant in instants]


def test_every_night_at_half_past_two_in_spring_is_at_three() -> None:
    assert due("30 2 * * *", BERLIN, "2026-03-28", "2026-03-30 12:00") == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_every_night_at_half_past_two_in_autumn_is_at_the_first_half_past_two() -> None:
    assert due("30 2 * * *", BERLIN, "2026-10-24", "2026-10-26 12:00") == ["10-24 00:30", "10-25 00:30", "10-26 01:30"]


def test_two_times_in_one_gap_are_due_once() -> None:
    assert due("0,30 2 * * *", BERLIN, "2026-03-29", "2026-03-29 23:59") == ["03-29 01:00"]


def test_a_time_in_a_gap_and_the_time_after_it_are_due_once() -> None:
    assert due("30 2,3 * * *", BERLIN, "2026-03-29", "2026-03-29 23:59") == ["03-29 01:00", "03-29 01:30"]
    assert due("0 2,3 * * *", BERLIN, "2026-03-29", "2026-03-29 23:59") == ["03-29 01:00"]


def test_every_hour_follows_the_clock_through_a_gap_and_through_an_hour_that_comes_twice() -> None:
    assert due("0 * * * *", BERLIN, "2026-03-29 00:00", "2026-03-29 02:00") == ["03-29 00:00", "03-29 01:00", "03-29 02:00"]
    assert due("0 * * * *", BERLIN, "2026-10-25 00:00", "2026-10-25 02:00") == ["10-25 00:00", "10-25 01:00", "10-25 02:00"]
    assert due("15 */2 * * *", BERLIN, "2026-03-28 23:00", "2026-03-29 05:00") == ["03-28 23:15", "03-29 02:15", "03-29 04:15"]


def test_a_clock_that_changes_by_half_an_hour_neither_loses_nor_repeats_a_minute() -> None:
    """On Lord Howe 02:00 becomes 02:30 in October, and 02:00 becomes 01:30 in April."""
    spring = due("*/15 * * * *", "Australia/Lord_Howe", "2026-10-03 15:00", "2026-10-03 16:00")
    assert spring == ["10-03 15:00", "10-03 15:15", "10-03 15:30", "10-03 15:45", "10-03 16:00"]
    assert due("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", "2026-10-04 12:00") == ["10-03 15:30"]
    autumn = due("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", "2026-04-05 12:00")
    assert autumn == ["04-04 14:45"]
    assert due("45 * * * *", "Australia/Lord_Howe", "2026-04-04 14:00", "2026-04-04 16:30") == ["04-04 14:45", "04-04 15:15", "04-04 16:15"]


def test_the_day_that_samoa_left_out_is_made_up_for_at_its_end() -> None:
    """30 December 2011 did not come. What was due on it is due at the first minute of the 31st, and the 31st has its own."""
    assert due("0 2 * * *", "Pacific/Apia", "2011-12-29 00:00", "2012-01-01 00:00") == [
        "12-29 12:00",
        "12-30 10:00",
        "12-30 12:00",
        "12-31 12:00",
    ]


def test_a_day_of_the_month_and_a_day_of_the_week_both_count() -> None:
    assert due("0 0 13 * 5", "UTC", "2026-02-01", "2026-02-28") == ["02-06 00:00", "02-13 00:00", "02-20 00:00", "02-27 00:00"]


def test_the_last_day_of_a_month_may_be_named() -> None:
    assert due("0 3 L * *", "UTC", "2028-02-01", "2028-03-31 12:00") == ["02-29 03:00", "03-31 03:00"]


def test_a_day_that_comes_every_four_years_is_found() -> None:
    assert next_of("0 0 29 2 *", "UTC", utc("2028-02-29 00:00")) == utc("2032-02-29 00:00")
    assert next_of("0 0 */31 2 1#5", "UTC", utc("2026-01-01 00:00")) is None


@pytest.mark.parametrize(
    "expression", ["", "0 2 * *", "0 2 * * * *", "0 24 * * *", "60 2 * * *", "0 2 * * 8", "0 2 32 * *", "@daily", "a b c d e"]
)
def test_what_is_not_cron_is_refused(expression: str) -> None:
    with pytest.raises(NotCron):
        parsed(expression)


@dataclass(frozen=True)
class Times:
    """Minutes and hours that an expression names. None: it begins with `*`."""

    minutes: Sequence[int] | None
    hours: Sequence[int] | None

    @property
    def expression(self) -> str:
        fields = [",".join(map(str, values)) if values is not None else "*" for values in (self.minutes, self.hours)]
        return f"{fields[0]} {fields[1]} * * *"

    def matches(self, local: datetime) -> bool:
        return (self.minutes is None or local.minute in self.minutes) and (self.hours is None or local.hour in self.hours)


some_minutes = st.lists(st.sampled_from([0, 1, 15, 29, 30, 45, 59]), min_size=1, max_size=3, unique=True).map(sorted)
some_hours = st.lists(st.integers(0, 23) | st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=3, unique=True).map(sorted)
times = st.builds(Times, st.none() | some_minutes, st.none() | some_hours)


def by_every_minute(asked: Times, zone: str, day: date) -> list[datetime]:
    """What is due from noon before the day to noon after it, found by looking at every minute of four days."""
    first = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=2)
    minutes = [first + timedelta(minutes=n) for n in range(5 * 1440)]
    local = [minute.astimezone(zone_of(zone)).replace(tzinfo=None) for minute in minutes]
    if asked.minutes is None or asked.hours is None:
        instants = {minute for minute, shown in zip(minutes, local, strict=True) if asked.matches(shown)}
    else:
        wanted = [
            datetime(each.year, each.month, each.day, hour, minute)
            for each in sorted({shown.date() + timedelta(days=n) for shown in local for n in (0, 1)})
            for hour in asked.hours
            for minute in asked.minutes
        ]
        # The first minute at which the clock shows the time, or has passed it.
        instants = {
            minutes[n] for n in (next((n for n, shown in enumerate(local) if shown >= each), None) for each in wanted) if n is not None
        }
    begin, until = first + timedelta(days=1, hours=12), first + timedelta(days=3, hours=12)
    return sorted(instant for instant in instants if begin < instant <= until)


@given(asked=times, zone=st.sampled_from(ZONES), day=st.sampled_from(CHANGES))
def test_the_instants_are_those_that_a_look_at_every_minute_finds(asked: Times, zone: str, day: date) -> None:
    noon = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=12)
    assert list(between(asked.expression, zone, noon, noon + timedelta(days=2))) == by_every_minute(asked, zone, day)


@given(asked=times, zone=st.sampled_from(ZONES), day=st.sampled_from(CHANGES), cuts=st.lists(st.integers(0, 2880), max_size=5).map(sorted))
def test_the_instants_do_not_depend_on_where_a_look_begins(asked: Times, zone: str, day: date, cuts: list[int]) -> None:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=12)
    borders = [begin, *(begin + timedelta(minutes=cut) for cut in cuts), begin + timedelta(days=2)]
    at_once = list(between(asked.expression, zone, borders[0], borders[-1]))
    assert [each for one, other in pairwise(borders) for each in between(asked.expression, zone, one, other)] == at_once
    one_by_one, after = [], begin
    while (instant := next_of(asked.expression, zone, after)) is not None and instant <= borders[-1]:
        one_by_one.append(instant)
        after = instant
    assert one_by_one == at_once


def test_an_expression_needs_the_five_fields_of_cron() -> None:
    assert len(["0", "2", "*", "*", "*"]) == cron.FIELDS_OF_CRON
