"""Time zones, and instants for times of day: also for those that a clock change leaves out or repeats."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from service.errors import TimeZoneUnknown
from service.model.document_fields import Fields, nearest, shown

_NOT_NAMES = ("localtime", "posixrules", "Factory")
"""Keys that stand for whatever zone a machine has."""
MINUTE = timedelta(minutes=1)


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(available_timezones().difference(_NOT_NAMES)))


def read_zone(fields: Fields) -> str:
    value = fields.text("time_zone", "the IANA name of a time zone, such as Europe/Berlin")
    if value and value not in names():
        fields.faults.add(TimeZoneUnknown(path=fields.at("time_zone"), value=shown(value), nearest=nearest(value, names())))
        return "UTC"
    return value or "UTC"


@cache
def zone_of(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def is_real(local: datetime) -> bool:
    """False: the clocks of the zone left out this time."""
    return local == local.astimezone(UTC).astimezone(local.tzinfo)


def first_instant(local: datetime) -> datetime:
    """In UTC. A time that was left out: the first minute after the gap. A time that comes twice: the first."""
    local = local.replace(fold=0)
    while not is_real(local):
        # Whole minutes, as cron has them. The longest gap is a day (Samoa, 2011).
        local += MINUTE
    return local.astimezone(UTC)


def last_instant(local: datetime) -> datetime:
    """As `first_instant`; a time that comes twice: the second."""
    first = first_instant(local)
    second = local.replace(fold=1)
    return max(first, second.astimezone(UTC)) if is_real(second) else first


def every_instant(local: datetime) -> tuple[datetime, ...]:
    """In UTC, in order: none for a time that was left out, two for a time that comes twice."""
    both = {local.replace(fold=fold).astimezone(UTC) for fold in (0, 1) if is_real(local.replace(fold=fold))}
    return tuple(sorted(both))


def steady_offset(day: date, zone: ZoneInfo) -> timedelta | None:
    """The offset that the zone has all day. None: the clocks change on that day, or at one of its ends."""
    midnight = datetime.combine(day, time(), zone)
    offset = midnight.utcoffset()
    next_midnight = datetime.combine(day + timedelta(days=1), time(fold=1), zone)
    noon = datetime.combine(day, time(12), zone)
    is_steady = offset == noon.utcoffset() == next_midnight.utcoffset() == midnight.replace(fold=1).utcoffset()
    return offset if is_steady else None
