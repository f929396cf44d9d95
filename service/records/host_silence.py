"""When a host counts as silent: by what its own worker said of itself, and by the clock of the database."""

from datetime import datetime, timedelta

from service.db.tables import Host

STALE_PERIODS = 3


def silence_of(host: Host) -> timedelta:
    """So long nothing must have been heard: longer than its jobs' leases last, and than three publications take."""
    return timedelta(seconds=max(host.lease_seconds, STALE_PERIODS * host.inventory_seconds))


def is_silent(host: Host, now: datetime) -> bool:
    """A report from the future is of a clock that was ahead, and says nothing of now."""
    return abs(now - host.last_seen) > silence_of(host)
