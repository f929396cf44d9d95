"""The instants that a cron expression names in a time zone, each of them once. cronsim reads the expression and chooses the days.

As Debian's cron: an expression that names minute and hour is due once on the days on which the clocks change. A time that is left out is
due at the first minute after the gap, and a time that comes twice is due the first time. Where minute or hour begins with `*`, the
expression follows the clock: nothing is due in a gap, and an hour that comes twice counts twice.

The instants of a day do not depend on when they were asked for. (An iteration of cronsim may begin between two clock changes, and then it
returns other instants than one that began before; in zones that change by half an hour it leaves minutes out.)
"""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from cronsim import CronSim, CronSimError

from service.model.time_zones import every_instant, first_instant, steady_offset, zone_of

FIELDS_OF_CRON = 5
"""Minute, hour, day of the month, month, day of the week. cronsim would take seconds as well."""
NEVER_YEARS = 50
"""Years. An expression that names no day within them is never due: 29 February on a Sunday may be 40 years away."""
DAY = timedelta(days=1)
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class NotCron(ValueError):
    """The expression cannot be read."""


@lru_cache(maxsize=4096)
def parsed(cron: str) -> CronSim:
    """Raises NotCron."""
    if len(cron.split()) != FIELDS_OF_CRON:
        raise NotCron(f"it has {len(cron.split())} fields, and not {FIELDS_OF_CRON}")
    try:
        return CronSim(cron, _ANY_TIME)
    except CronSimError as error:
        raise NotCron(str(error)) from error


def next_of(cron: str, zone: str, after: datetime) -> datetime | None:
    """The first instant later than `after`. None: never."""
    first = after.astimezone(UTC).toordinal()
    for day in range(first, first + NEVER_YEARS * 366):
        instants = on_day(cron, zone, day)
        if instants and instants[-1] > after:
            return instants[bisect_right(instants, after)]
    return None


def between(cron: str, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Later than `after`, and not later than `until`; in order."""
    for day in range(after.astimezone(UTC).toordinal(), until.astimezone(UTC).toordinal() + 1):
        yield from (instant for instant in on_day(cron, zone, day) if after < instant <= until)


@lru_cache(maxsize=1024)
def on_day(cron: str, zone: str, day: int) -> tuple[datetime, ...]:
    """The instants of a day of UTC, in order. `day`: its ordinal. The local days that reach into it have up to a day's distance."""
    begin = datetime.combine(date.fromordinal(day), time(), UTC)
    instants = {each for local in (day - 1, day, day + 1) for each in _on_local_day(cron, zone, local) if begin <= each < begin + DAY}
    return tuple(sorted(instants))


def _on_local_day(cron: str, zone: str, day: int) -> tuple[datetime, ...]:
    rule, local = parsed(cron), date.fromordinal(day)
    return _instants(cron, zone, local) if local.month in rule.months and rule.match_day(local) else ()


@lru_cache(maxsize=1024)
def _instants(cron: str, zone: str, day: date) -> tuple[datetime, ...]:
    minutes = _minutes_of_day(cron)
    offset = steady_offset(day, zone_of(zone))
    if offset is not None:
        midnight = datetime.combine(day, time(), UTC) - offset
        return tuple(midnight + each for each in minutes)
    midnight = datetime.combine(day, time(), zone_of(zone))
    if _names_minute_and_hour(cron):
        return tuple(first_instant(midnight + each) for each in minutes)
    return tuple(instant for each in minutes for instant in every_instant(midnight + each))


@lru_cache(maxsize=1024)
def _minutes_of_day(cron: str) -> tuple[timedelta, ...]:
    rule = parsed(cron)
    return tuple(timedelta(hours=hour, minutes=minute) for hour in sorted(rule.hours) for minute in sorted(rule.minutes))


def _names_minute_and_hour(cron: str) -> bool:
    minute, hour, *_ = cron.split()
    return not minute.startswith("*") and not hour.startswith("*")
