"""What verification by plan may cost: bytes a day and hours of the day, and what is left of both. Pure rules, no I/O.

A day is a day of the time zone of the budget. What a day leaves over is not kept for later days. A read that costs more than a day's bytes
may begin on a day of which nothing is spent, and the days after it pay for it: over many days the budget is never exceeded by more than
one read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from service.model import blackouts
from service.model.blackouts import Blackout, Weekday, Window
from service.model.repository import ProofKind
from service.model.requests import VerifyRequest
from service.model.time_zones import zone_of

LOOK_BACK = timedelta(days=90)
"""Reads that are older are not counted any more. What they still owed is forgiven."""
WHOLE_DAY = ("00:00", "24:00")


class Spent(NamedTuple):
    """One read by plan. `took_s`: None while it runs, or if that is not known."""

    at: datetime
    bytes: int
    took_s: float | None = None


@dataclass(frozen=True)
class Budget:
    """`bytes_per_day` None: no limit but the hours. `hours`: when a read may begin, and should end; None: at any time.

    `checks`: what is looked at beside the bytes, which are always read. `rate_limit_bytes`: bytes a second.
    """

    bytes_per_day: int | None = None
    hours: Blackout | None = None
    time_zone: str = "UTC"
    checks: tuple[ProofKind, ...] = VerifyRequest.checks
    rate_limit_bytes: int | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Budget":
        """As `as_document` has written it."""
        zone, begin, end = document["time_zone"], document["from"], document["to"]
        days = tuple(Weekday(day) for day in document["days"])
        is_limited = (begin, end) != WHOLE_DAY or len(days) < len(Weekday)
        return cls(
            bytes_per_day=document["bytes_per_day"],
            hours=Blackout(days, begin, end, zone) if is_limited else None,
            time_zone=zone,
            checks=tuple(ProofKind(check) for check in document["checks"]),
            rate_limit_bytes=document["rate_limit_bytes"],
        )

    def as_document(self) -> dict[str, Any]:
        hours = self.hours or Blackout(tuple(Weekday), *WHOLE_DAY, self.time_zone)
        return {
            "bytes_per_day": self.bytes_per_day,
            **hours.as_document(),
            "checks": [check.value for check in self.checks],
            "rate_limit_bytes": self.rate_limit_bytes,
        }

    def window(self, now: datetime) -> Window | None:
        """The hours that are open now. Without limited hours: from now on for ever. None: closed."""
        if self.hours is None:
            return Window(now, datetime.max.replace(tzinfo=now.tzinfo))
        return blackouts.window_at([self.hours], now)

    def spent_today(self, spent: Iterable[Spent], now: datetime) -> int:
        zone = zone_of(self.time_zone)
        today = now.astimezone(zone).date()
        return sum(each.bytes for each in spent if each.at.astimezone(zone).date() == today)

    def left(self, spent: Iterable[Spent], now: datetime) -> int | None:
        """The bytes that are left today. Below 0: a large read is still to be paid for. None: there is no limit."""
        if self.bytes_per_day is None:
            return None
        zone = zone_of(self.time_zone)
        by_day: dict[int, int] = {}
        today = now.astimezone(zone).toordinal()
        for each in spent:
            day = min(each.at.astimezone(zone).toordinal(), today)
            if now - each.at <= LOOK_BACK:
                by_day[day] = by_day.get(day, 0) + each.bytes
        left = self.bytes_per_day
        for day in range(min(by_day, default=today), today + 1):
            left = min(self.bytes_per_day, left + self.bytes_per_day) - by_day.get(day, 0)
        return left


def can_begin(budget: Budget, cost_bytes: int, spent: Sequence[Spent], now: datetime) -> bool:
    """Whether a read of so many bytes may begin now."""
    window, left = budget.window(now), budget.left(spent, now)
    if window is None:
        return False
    if left is not None and budget.bytes_per_day is not None and left < min(cost_bytes, budget.bytes_per_day):
        return False
    return _ends_in(window, budget, cost_bytes, spent, now)


def _ends_in(window: Window, budget: Budget, cost_bytes: int, spent: Sequence[Spent], now: datetime) -> bool:
    """A read that the rest of the hours is too short for waits for the next hours. There it is the first, and begins in every case."""
    is_first = not any(window.begin <= each.at <= now for each in spent)
    rate = min((each for each in (rate_of(spent), budget.rate_limit_bytes) if each is not None), default=None)
    return is_first or rate is None or now + timedelta(seconds=min(cost_bytes / rate, LOOK_BACK.total_seconds())) <= window.end


RATE_OF = 5
"""The newest reads by whose speed the next one is judged."""


def rate_of(spent: Sequence[Spent]) -> float | None:
    """Bytes a second of the slowest of the newest reads. None: none of them has ended."""
    ended = [each for each in sorted(spent) if each.took_s is not None and each.took_s > 0 and each.bytes > 0]
    return min((each.bytes / each.took_s for each in ended[-RATE_OF:] if each.took_s is not None), default=None)
