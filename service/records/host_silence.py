"""Decides when a host counts as silent, by the periods that its own worker has stored and by the clock of the database."""

from datetime import datetime, timedelta

from service.db.tables import Host

STALE_PERIODS = 3
"""Publications that may be missing. After that the host counts as silent, unless leases last longer."""


def silence_of(host: Host) -> timedelta:
    """How long a silent host has not reported: longer than the leases of its jobs, and longer than three publications."""
    return timedelta(seconds=max(host.lease_seconds, STALE_PERIODS * host.inventory_seconds))


def is_silent(host: Host, now: datetime) -> bool:
    """A report from the future was dated by a clock that was ahead, and does not show that the host lives now."""
    return abs(now - host.last_seen) > silence_of(host)
