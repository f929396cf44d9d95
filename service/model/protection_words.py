"""Times and numbers of a sentence in words: "since Tuesday", "for 5 hours", "4 jobs". The facts of the reason have the exact values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from service.clock import rfc3339

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class _Instant:
    """Formats as `since`, `ago` or `coming`."""

    __slots__ = ("at", "now")

    def __init__(self, at: datetime, now: datetime) -> None:
        self.at, self.now = at, now

    def __format__(self, spec: str) -> str:
        past_s = (self.now - self.at).total_seconds()
        match spec:
            case "since":
                return f"since {_DAYS[self.at.weekday()]}" if _DAY_S <= past_s < 6 * _DAY_S else f"for {span(past_s)}"
            case "ago":
                return f"{span(past_s)} ago"
            case "coming":
                return f"in {span(-past_s)}" if past_s < 0 else "now"
            case _:
                return rfc3339(self.at)


class _Number:
    """Formats as `span` (of seconds) or `jobs`."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        match spec:
            case "span":
                return span(self.value)
            case "jobs":
                return "1 job" if self.value == 1 else f"{self.value} jobs"
            case _:
                return str(self.value)


def span(seconds: float) -> str:
    """The length of a time, with the largest unit that has at least two of it."""
    for unit, length in (("day", _DAY_S), ("hour", _HOUR_S), ("minute", _MINUTE_S)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}s"
    return "a minute" if seconds >= _MINUTE_S else "less than a minute"


def in_words(sentence: str, facts: Mapping[str, Any], now: datetime) -> str:
    return sentence.format_map({name: _worded(value, now) for name, value in facts.items()})


def _worded(value: Any, now: datetime) -> Any:
    if isinstance(value, datetime):
        return _Instant(value, now)
    if isinstance(value, int | float):
        return _Number(value)
    return value
