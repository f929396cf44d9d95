"""Windows of time in which a policy starts nothing. They may overlap, touch, and go over midnight."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from service.errors import BlackoutsLeaveNothing, FieldRefused
from service.model.document_fields import Faults, Fields, shown
from service.model.time_zones import first_instant, last_instant, read_zone, zone_of

FIELDS = ("days", "from", "to", "time_zone")
MAX_BLOCKED = timedelta(days=28)
"""Blackouts that leave nothing free for so long are refused. Where a document has them nevertheless, they end then."""
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_END = rf"{_TIME}|24:00"
_LOOKED_AT = [datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 13)]
"""Windows of zones that change their clocks on different days leave other gaps in other months."""


class Weekday(StrEnum):
    """In the order of `date.weekday()`."""

    mon = "mon"
    tue = "tue"
    wed = "wed"
    thu = "thu"
    fri = "fri"
    sat = "sat"
    sun = "sun"


class Window(NamedTuple):
    """`end` is not a part of it."""

    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Blackout:
    """`days`: on which a window begins. `end` before `begin`, as `HH:MM`: the window ends on the next day. `24:00` is midnight."""

    days: tuple[Weekday, ...]
    begin: str
    end: str
    time_zone: str

    @classmethod
    def read(cls, fields: Fields) -> "Blackout":
        named = fields.texts("days", "days such as mon", pattern="|".join(Weekday), longest=3, limit=7)
        begin = fields.text("from", "a time such as 08:00", pattern=_TIME)
        end = fields.text("to", "a time such as 18:00, or 24:00", pattern=_END)
        if begin and begin == end:
            allowed = "another time than from; 00:00 to 24:00 is a whole day"
            fields.faults.add(FieldRefused(path=fields.at("to"), value=shown(end), allowed=allowed))
        days = tuple(day for day in Weekday if day.value in named or not named)
        return cls(days, begin or "00:00", end or "24:00", read_zone(fields))

    def as_document(self) -> dict[str, Any]:
        return {"days": [day.value for day in self.days], "from": self.begin, "to": self.end, "time_zone": self.time_zone}


def read_all(blackouts: Sequence[Blackout], path: str, faults: Faults) -> tuple[Blackout, ...]:
    """All of them. Adds a fault if together they leave nothing free for weeks."""
    for begin in _LOOKED_AT:
        until = blocked_until(blackouts, begin)
        if until is not None and until - begin >= MAX_BLOCKED:
            faults.add(BlackoutsLeaveNothing(path=path, begin=begin.date().isoformat(), until=until.date().isoformat()))
            break
    return tuple(blackouts)


def blocked_until(blackouts: Sequence[Blackout], instant: datetime) -> datetime | None:
    """When the first time without a blackout comes. None: the instant lies in none."""
    end = instant
    while end - instant < MAX_BLOCKED:
        later = max((window.end for window in _around(blackouts, end) if window.begin <= end < window.end), default=None)
        if later is None:
            break
        end = later
    return end if end > instant else None


def window_at(windows: Sequence[Blackout], instant: datetime) -> Window | None:
    """The window in which the instant lies, with those that follow it without a gap. None: it lies in none."""
    end = blocked_until(windows, instant)
    if end is None:
        return None
    begin = min(window.begin for window in _around(windows, instant) if window.begin <= instant < window.end)
    return Window(begin, end)


def _around(blackouts: Sequence[Blackout], instant: datetime) -> Iterator[Window]:
    for blackout in blackouts:
        day = instant.astimezone(zone_of(blackout.time_zone)).toordinal()
        # A window of today or yesterday may reach to now. Where a day was left out, the one before that as well.
        for begins_on in (day - 2, day - 1, day):
            window = _window(blackout, begins_on)
            if window is not None:
                yield window


@lru_cache(maxsize=4096)
def _window(blackout: Blackout, day: int) -> Window | None:
    """The one that begins on a day; `day`: its ordinal. A time that comes twice is blocked both times."""
    local = date.fromordinal(day)
    if tuple(Weekday)[local.weekday()] not in blackout.days:
        return None
    midnight = datetime.combine(local, time(), zone_of(blackout.time_zone))
    begin, end = _since_midnight(blackout.begin), _since_midnight(blackout.end)
    if end <= begin:
        end += timedelta(days=1)
    window = Window(first_instant(midnight + begin), last_instant(midnight + end))
    return window if window.begin < window.end else None


def _since_midnight(text: str) -> timedelta:
    hours, minutes = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))
