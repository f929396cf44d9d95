"""Windows in which a policy starts nothing: their ends, and what lies in them."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import blackouts
from service.model.blackouts import MAX_BLOCKED, Blackout, blocked_until
from service.model.document_fields import Faults, Fields
from service.model.time_zones import zone_of
from tests.model import written_policies
from tests.model.test_time_zones import utc

WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTE = timedelta(minutes=1)


def a_blackout(begin: str, end: str, zone: str = "UTC", days: tuple[str, ...] = WEEK) -> Blackout:
    return read({"days": list(days), "from": begin, "to": end, "time_zone": zone})


def read(document: dict[str, Any]) -> Blackout:
    faults = Faults()
    blackout = Blackout.read(Fields(document, "blackouts[0]", blackouts.FIELDS, faults))
    assert faults.all == []
    return blackout


def ends(instant: str, *windows: Blackout) -> str | None:
    end = blocked_until(windows, utc(instant))
    return f"{end:%m-%d %H:%M}" if end is not None else None


def test_the_end_of_a_window_is_free_and_its_begin_is_not() -> None:
    office = a_blackout("08:00", "18:00")
    assert ends("2026-06-15 07:59:59", office) is None
    assert ends("2026-06-15 08:00", office) == ends("2026-06-15 17:59:59", office) == "06-15 18:00"
    assert ends("2026-06-15 18:00", office) is None


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    friday = a_blackout("22:00", "06:00", days=("fri",))
    assert ends("2026-06-19 23:00", friday) == ends("2026-06-20 05:00", friday) == "06-20 06:00"
    assert ends("2026-06-19 05:00", friday) is None
    assert ends("2026-06-20 23:00", friday) is None


def test_windows_that_touch_or_overlap_are_one() -> None:
    morning, noon, night = a_blackout("06:00", "12:00"), a_blackout("11:00", "18:00"), a_blackout("18:00", "24:00")
    assert ends("2026-06-15 06:30", morning, noon, night) == "06-16 00:00"
    assert ends("2026-06-15 06:30", night, noon, morning) == "06-16 00:00"


def test_a_weekend_of_whole_days_ends_on_monday() -> None:
    weekend = a_blackout("00:00", "24:00", days=("sat", "sun"))
    assert ends("2026-06-20 00:00", weekend) == ends("2026-06-21 23:59", weekend) == "06-22 00:00"
    assert ends("2026-06-19 23:59", weekend) is None


@pytest.mark.parametrize(
    ("instant", "begin", "end", "until"),
    [
        # In spring 02:00 to 03:00 is left out. A border in it is the first minute after it.
        ("2026-03-29 00:45", "01:30", "02:30", "03-29 01:00"),
        ("2026-03-29 01:00", "02:30", "04:00", "03-29 02:00"),
        ("2026-03-29 01:00", "02:15", "02:45", None),
        # In autumn 02:00 to 03:00 comes twice, and is blocked both times.
        ("2026-10-25 00:15", "02:00", "02:30", "10-25 01:30"),
        ("2026-10-25 01:15", "02:00", "02:30", "10-25 01:30"),
        ("2026-10-25 00:45", "02:30", "04:00", "10-25 03:00"),
    ],
)
def test_windows_follow_the_clocks_when_those_change(instant: str, begin: str, end: str, until: str | None) -> None:
    assert ends(instant, a_blackout(begin, end, "Europe/Berlin")) == until


def test_a_window_reaches_over_a_day_that_was_left_out() -> None:
    """29 December 2011 was followed by the 31st in Samoa."""
    night = a_blackout("22:00", "06:00", "Pacific/Apia", days=("thu",))
    assert ends("2011-12-30 09:00", night) == "12-30 10:00"


def test_blackouts_that_never_end_are_taken_to_end_after_weeks() -> None:
    always = a_blackout("00:00", "24:00")
    until = blocked_until([always], utc("2026-06-15 12:00"))
    assert until is not None
    assert MAX_BLOCKED <= until - utc("2026-06-15 12:00") <= MAX_BLOCKED + timedelta(days=1)


several = st.lists(written_policies.blackouts.map(read), max_size=3)
instants = (st.datetimes(datetime(2026, 3, 1), datetime(2026, 4, 10)) | st.datetimes(datetime(2026, 10, 1), datetime(2026, 11, 10))).map(
    lambda local: utc(local.isoformat())
)


@given(windows=several, instant=instants)
def test_the_first_free_instant_is_free_and_all_before_it_are_blocked(windows: list[Blackout], instant: datetime) -> None:
    until = blocked_until(windows, instant)
    if until is None:
        return
    assert until > instant
    assert until - instant >= MAX_BLOCKED or blocked_until(windows, until) is None
    for n in range(1, 50):
        between = instant + (until - instant) * n / 50
        assert blocked_until(windows, between) is not None


@given(windows=several, instant=instants)
def test_an_instant_is_blocked_where_the_clock_shows_a_time_within_a_window(windows: list[Blackout], instant: datetime) -> None:
    """Away from the changes of the clocks, where a border may be moved."""
    shown = [instant.astimezone(zone_of(window.time_zone)) for window in windows]
    if any((each - timedelta(days=2)).utcoffset() != (each + timedelta(days=2)).utcoffset() for each in shown):
        return
    is_within = any(_is_within(window, local) for window, local in zip(windows, shown, strict=True))
    assert (blocked_until(windows, instant) is not None) == is_within


def _is_within(window: Blackout, local: datetime) -> bool:
    time, today, yesterday = f"{local:%H:%M}", WEEK[local.weekday()], WEEK[local.weekday() - 1]
    if window.begin < window.end:
        return today in window.days and window.begin <= time < window.end
    return (today in window.days and time >= window.begin) or (yesterday in window.days and time < window.end)
