"""When a track is due: a cron expression in a time zone, with jitter, and what happens to a run whose time has passed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any

from service.errors import CronNeverDue, CronUnreadable, JitterTooLong
from service.model import cron
from service.model.document_fields import Fields, shown
from service.model.time_zones import read_zone

FIELDS = ("cron", "time_zone", "jitter_s", "catch_up", "catch_up_within_s")
MAX_JITTER_S = 86_400
"""Seconds. A longer jitter is refused."""
MAX_CATCH_UP_S = 366 * 86_400
"""Seconds. A longer time is refused, as it is a mistake."""
_LOOKED_AT_FROM = datetime(2026, 1, 1, tzinfo=UTC)
"""From here the gaps between runs are looked at. The same document is always valid or never, so this is not the present time."""
_LOOKED_AT_DAYS = 400
"""Days. Gaps after them are not looked at."""
_LOOKED_AT_RUNS = 2_000
"""Runs. Gaps after them are not looked at."""


class CatchUp(StrEnum):
    run = "run"
    """The newest run whose time has passed is made up for. It also waits for the end of a blackout."""
    skip = "skip"


@dataclass(frozen=True)
class ScheduleRule:
    """`jitter_s`: each run begins up to this many seconds after it is due. `catch_up_within_s`: how late a run may begin."""

    cron: str
    time_zone: str
    jitter_s: int = 0
    catch_up: CatchUp = CatchUp.run
    catch_up_within_s: int = 86_400

    @classmethod
    def read(cls, fields: Fields) -> "ScheduleRule":
        rule = cls(
            cron=_cron(fields),
            time_zone=read_zone(fields),
            jitter_s=fields.whole("jitter_s", 0, MAX_JITTER_S, default=0),
            catch_up=fields.choice("catch_up", CatchUp, CatchUp.run),
            catch_up_within_s=fields.whole("catch_up_within_s", 0, MAX_CATCH_UP_S, default=86_400),
        )
        gap_s = shortest_gap_s(rule.cron, rule.time_zone) if rule.jitter_s else None
        if gap_s is not None and rule.jitter_s >= gap_s:
            fields.faults.add(JitterTooLong(path=fields.at("jitter_s"), jitter_s=rule.jitter_s, gap_s=gap_s))
        return rule

    def as_document(self) -> dict[str, Any]:
        return {**vars(self), "catch_up": self.catch_up.value}


@lru_cache(maxsize=1024)
def shortest_gap_s(expression: str, time_zone: str) -> int | None:
    """Between two runs, as far as they are looked at. None: there are fewer than two."""
    until = _LOOKED_AT_FROM + timedelta(days=_LOOKED_AT_DAYS)
    due = islice(cron.between(expression, time_zone, _LOOKED_AT_FROM, until), _LOOKED_AT_RUNS)
    return min((int((later - earlier).total_seconds()) for earlier, later in pairwise(due)), default=None)


def _cron(fields: Fields) -> str:
    """With one space between its fields."""
    value = fields.text("cron", "five fields of cron, such as 0 2 * * *")
    expression = " ".join(value.split())
    if not expression:
        return _STAND_IN
    path = fields.at("cron")
    try:
        cron.parsed(expression)
    except cron.NotCron as error:
        fields.faults.add(CronUnreadable(path=path, value=shown(value), reason=str(error)))
        return _STAND_IN
    if cron.next_of(expression, "UTC", _LOOKED_AT_FROM) is None:
        fields.faults.add(CronNeverDue(path=path, value=shown(value), years=cron.NEVER_YEARS))
        return _STAND_IN
    return expression


_STAND_IN = "0 0 1 1 *"
"""For an expression that has a fault: two runs are so far apart that its jitter has no second fault."""
