"""Instants for times of day, also for those that a clock change leaves out or repeats."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import time_zones
from service.model.time_zones import MINUTE, every_instant, first_instant, is_real, last_instant, steady_offset, zone_of

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Antarctica/Troll",
    "Pacific/Apia",
    "Asia/Beirut",
    "America/Sao_Paulo",
)
zones = st.sampled_from(ZONES)
local_times = st.datetimes(datetime(2011, 1, 1), datetime(2012, 12, 31)) | st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31))


def at(zone: str, text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "local", "instant"),
    [
        # Berlin leaves out 02:00 to 03:00, New York the same hour on another day, Lord Howe only half an hour.
        ("Europe/Berlin", "2026-03-29 02:30", "2026-03-29 01:00"),
        ("America/New_York", "2026-03-08 02:00", "2026-03-08 07:00"),
        ("Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03 15:30"),
        # Troll leaves out two hours, and Samoa left out a whole day.
        ("Antarctica/Troll", "2026-03-29 01:30", "2026-03-29 01:00"),
        ("Pacific/Apia", "2011-12-30 02:00", "2011-12-30 10:00"),
        # Midnight itself was left out in Beirut.
        ("Asia/Beirut", "2026-03-29 00:00", "2026-03-28 22:00"),
    ],
)
def test_a_time_that_was_left_out_is_the_first_minute_after_the_gap(zone: str, local: str, instant: str) -> None:
    assert not is_real(at(zone, local))
    assert first_instant(at(zone, local)) == last_instant(at(zone, local)) == utc(instant)
    assert every_instant(at(zone, local)) == ()


@pytest.mark.parametrize(
    ("zone", "local", "first", "second"),
    [
        ("Europe/Berlin", "2026-10-25 02:30", "2026-10-25 00:30", "2026-10-25 01:30"),
        ("America/New_York", "2026-11-01 01:00", "2026-11-01 05:00", "2026-11-01 06:00"),
        ("Australia/Lord_Howe", "2026-04-05 01:45", "2026-04-04 14:45", "2026-04-04 15:15"),
        ("America/Havana", "2026-11-01 00:00", "2026-11-01 04:00", "2026-11-01 05:00"),
    ],
)
def test_a_time_that_comes_twice_has_two_instants(zone: str, local: str, first: str, second: str) -> None:
    assert every_instant(at(zone, local)) == (utc(first), utc(second))
    assert (first_instant(at(zone, local)), last_instant(at(zone, local))) == (utc(first), utc(second))


@given(zone=zones, local=local_times)
def test_a_time_that_comes_once_has_one_instant(zone: str, local: datetime) -> None:
    aware = local.replace(tzinfo=zone_of(zone))
    instants = every_instant(aware)
    if len(instants) == 1:
        assert first_instant(aware) == last_instant(aware) == instants[0] == aware.astimezone(UTC)
    for instant in instants:
        assert instant.astimezone(zone_of(zone)).replace(tzinfo=None) == local


@given(zone=zones, local=local_times)
def test_the_instant_of_a_time_in_a_gap_has_the_first_time_after_it(zone: str, local: datetime) -> None:
    aware = local.replace(second=0, microsecond=0, tzinfo=zone_of(zone))
    if not every_instant(aware):
        instant = first_instant(aware)
        assert instant.astimezone(zone_of(zone)).replace(tzinfo=None) > aware.replace(tzinfo=None)
        assert (instant - MINUTE).astimezone(zone_of(zone)).replace(tzinfo=None) < aware.replace(tzinfo=None)


@given(zone=zones, local=local_times)
def test_a_steady_day_has_the_same_offset_at_each_minute(zone: str, local: datetime) -> None:
    day = local.date()
    offset = steady_offset(day, zone_of(zone))
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone_of(zone))
    offsets = {(midnight + timedelta(minutes=n)).replace(fold=fold).utcoffset() for n in range(0, 1441, 30) for fold in (0, 1)}
    assert offset is None or offsets == {offset}


@pytest.mark.parametrize("day", [date(2026, 3, 29), date(2026, 10, 25)])
def test_a_day_with_a_clock_change_is_not_steady(day: date) -> None:
    assert steady_offset(day, zone_of("Europe/Berlin")) is None
    assert steady_offset(day + timedelta(days=1), zone_of("Europe/Berlin")) is not None


def test_names_that_stand_for_the_zone_of_a_machine_are_not_zones() -> None:
    assert "Europe/Berlin" in time_zones.names()
    assert not {"localtime", "posixrules", "Factory"} & set(time_zones.names())
