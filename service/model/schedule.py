"""What becomes of each instant at which a track is due: exactly one outcome, however often and whenever the scheduler looks.

The scheduler keeps `next_due_at` of each schedule: every earlier instant has its outcome, and no later one has. `decide` returns the
outcomes of what has become due since, and the next instant. A clock that goes back finds nothing due, as `next_due_at` stays.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice, pairwise
from typing import Any, NamedTuple

from service.model import cron
from service.model.blackouts import Blackout, blocked_until
from service.model.schedule_rule import CatchUp, ScheduleRule

MAX_RUNS = 1_000
"""Outcomes that one look decides at most. After a long absence further looks decide the rest; the newest run is among the last."""
ON_TIME = timedelta(minutes=5)
"""A run that begins so late is still on time: a service that is restarted loses nothing, also where `catch_up` is skip."""
JUMP = timedelta(days=7)
"""If the clock differs by more than this from the last look, it may have jumped."""
JUMP_BELIEVED_S = 900.0
"""Seconds after which a clock that may have jumped is believed. Nothing is decided until then: an outcome is for ever."""


class Outcome(StrEnum):
    queued = "queued"
    missed = "missed"
    skipped = "skipped"


class Reason(StrEnum):
    # --- missed
    too_late = "too_late"
    """The service, or its database, was away for longer than the rule allows to catch up."""
    newer_due = "newer_due"
    """The service was away, and a newer run of the track was due as well."""
    # --- skipped
    paused = "paused"
    domain_gone = "domain_gone"
    tie = "tie"
    policy_changed = "policy_changed"
    blackout = "blackout"
    still_running = "still_running"
    refused = "refused"


@dataclass(frozen=True)
class Run:
    """What became of one due instant."""

    due_at: datetime
    outcome: Outcome
    reason: Reason | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def refused(self, error: Mapping[str, Any]) -> "Run":
        """For a run whose job could not be made. `error`: as a document."""
        return replace(self, outcome=Outcome.skipped, reason=Reason.refused, facts={"error": dict(error)})


@dataclass(frozen=True)
class Standing:
    """What the scheduler knows of one schedule. `key`: what its jitter depends on (`key_of`).

    `obstacle`: why nothing of the policy runs for the domain now: paused, domain_gone or tie. `running_job`: the job of the last run,
    if it has not ended. `decided`: due instants from `next_due_at` on that have an outcome, as only a clock that was wrong leaves them.
    """

    key: str
    next_due_at: datetime | None
    obstacle: Reason | None = None
    running_job: str | None = None
    decided: Collection[datetime] = ()


@dataclass(frozen=True)
class Decision:
    """`fire_at`: when to look again. `has_more`: look again at once. Both instants None: the rule names no further instant."""

    runs: tuple[Run, ...]
    next_due_at: datetime | None
    fire_at: datetime | None
    has_more: bool = False


class Start(NamedTuple):
    """When a run begins if nothing else stops it. `is_blocked`: its own time lies in a blackout."""

    at: datetime
    is_blocked: bool


# --- when a rule is due ---------------------------------------------------------------------------


def next_due(rule: ScheduleRule, after: datetime) -> datetime | None:
    """The first instant later than `after`, in UTC. None: never."""
    return cron.next_of(rule.cron, rule.time_zone, after)


def due_between(rule: ScheduleRule, after: datetime, until: datetime, limit: int | None = None) -> list[datetime]:
    """Later than `after` and not later than `until`, in UTC and in order. `limit`: of the first ones."""
    return list(islice(cron.between(rule.cron, rule.time_zone, after, until), limit))


def key_of(track: str, domain_id: str) -> str:
    """What the jitter depends on. A preview of a policy that has no schedules yet shows the same jitter as its schedules get.

    The name of the policy is not in it: a new name would move a run that waits for its jitter, perhaps to a time that has passed.
    """
    return f"{track}/{domain_id}"


def jitter_of(key: str, due_at: datetime, jitter_s: int) -> timedelta:
    """The same on every machine, and different for each domain and each night."""
    if not jitter_s:
        return timedelta()
    digest = hashlib.sha256(f"{key} {int(due_at.timestamp())}".encode()).digest()
    return timedelta(milliseconds=int.from_bytes(digest[:8], "big") % (jitter_s * 1000))


def start_of(rule: ScheduleRule, blackouts: Sequence[Blackout], key: str, due_at: datetime) -> Start:
    jitter = jitter_of(key, due_at, rule.jitter_s)
    at = due_at + jitter
    until = blocked_until(blackouts, at)
    if until is None:
        return Start(at, is_blocked=False)
    return Start(at if rule.catch_up is CatchUp.skip else _after(blackouts, until, jitter), is_blocked=True)


def is_overtaken(start: Start, next_due_at: datetime | None) -> bool:
    """Whether the next run is due before this one begins. Then only the next one begins."""
    return next_due_at is not None and start.at >= next_due_at


def is_skipped(rule: ScheduleRule, start: Start) -> bool:
    """Whether a blackout takes the run, for which it does not wait."""
    return start.is_blocked and rule.catch_up is CatchUp.skip


def fire_at_of(rule: ScheduleRule, blackouts: Sequence[Blackout], key: str, due_at: datetime) -> datetime | None:
    """When a run that has not been looked at yet is looked at."""
    return _waits(rule, (), due_at, start_of(rule, blackouts, key, due_at).at).fire_at


def _after(blackouts: Sequence[Blackout], until: datetime, jitter: timedelta) -> datetime:
    """With jitter, too: otherwise all guests begin at the same instant. Without it if that runs into the next blackout."""
    return until + jitter if blocked_until(blackouts, until + jitter) is None else until


# --- what becomes of what is due ------------------------------------------------------------------


def begin(rule: ScheduleRule, blackouts: Sequence[Blackout], key: str, after: datetime, decided: Collection[datetime] = ()) -> Decision:
    """The first run of a new or changed schedule, and of one whose clock was wrong. `decided`: later instants that have an outcome."""
    due_at = next_due(rule, after)
    while due_at is not None and due_at in decided:
        due_at = next_due(rule, due_at)
    return _waits(rule, (), due_at, start_of(rule, blackouts, key, due_at).at if due_at is not None else None)


def decide(rule: ScheduleRule, blackouts: Sequence[Blackout], standing: Standing, now: datetime, limit: int = MAX_RUNS) -> Decision:
    """The outcomes of everything that has become due, oldest first. Of several only the newest may begin."""
    due = _due(rule, standing, now, limit)
    if len(due) > limit:
        return _has_more(rule, blackouts, standing, due)
    runs = [_overtaken(rule, blackouts, standing, each, later) for each, later in pairwise(due)]
    newest = due[-1] if due else None
    if newest is None or newest in standing.decided:
        return _with_next(rule, blackouts, standing, runs, newest)
    outcome = _newest(rule, blackouts, standing, newest, now)
    if isinstance(outcome, datetime):
        return _waits(rule, _undecided(runs, standing), newest, outcome)
    return _with_next(rule, blackouts, standing, [*runs, outcome], newest)


def give_up(rule: ScheduleRule, standing: Standing, reason: Reason, now: datetime, limit: int = MAX_RUNS) -> Decision:
    """Skip everything that is due and has not begun: its track was changed, or its policy was deleted. Then `begin` it, or remove it."""
    due = _due(rule, standing, now, limit)
    runs = [Run(each, Outcome.skipped, reason) for each in due[:limit]]
    more = due[limit] if len(due) > limit else None
    return Decision(_undecided(runs, standing), more, more, has_more=more is not None)


def is_clock_believed(last_look: datetime | None, now: datetime, lasted_s: float) -> bool:
    """`lasted_s`: how long, by a clock that cannot jump, the difference has been seen."""
    return last_look is None or abs(now - last_look) <= JUMP or lasted_s >= JUMP_BELIEVED_S


def _due(rule: ScheduleRule, standing: Standing, now: datetime, limit: int) -> list[datetime]:
    """One more than `limit` if there are more.

    The first is `next_due_at`, also where the rule does not name it any more: a newer time zone database may have moved it.
    """
    if standing.next_due_at is None or standing.next_due_at > now:
        return []
    return [standing.next_due_at, *due_between(rule, standing.next_due_at, now, limit)]


def _newest(rule: ScheduleRule, blackouts: Sequence[Blackout], standing: Standing, due_at: datetime, now: datetime) -> Run | datetime:
    """An instant: the run waits until then."""
    start = start_of(rule, blackouts, standing.key, due_at)
    if start.at > now:
        return start.at
    if standing.obstacle is not None:
        return Run(due_at, Outcome.skipped, standing.obstacle)
    if is_skipped(rule, start):
        return Run(due_at, Outcome.skipped, Reason.blackout)
    late = now - start.at
    if late > _allowed(rule):
        return Run(due_at, Outcome.missed, Reason.too_late, {"late_s": round(late.total_seconds())})
    blocked = blocked_until(blackouts, now)
    if blocked is not None:
        # The service was away when the run was to begin, and is back in a blackout.
        waits = rule.catch_up is CatchUp.run
        return _after(blackouts, blocked, start.at - due_at) if waits else Run(due_at, Outcome.skipped, Reason.blackout)
    if standing.running_job is not None:
        return Run(due_at, Outcome.skipped, Reason.still_running, {"job_id": standing.running_job})
    return Run(due_at, Outcome.queued)


def _allowed(rule: ScheduleRule) -> timedelta:
    within = timedelta(seconds=rule.catch_up_within_s) if rule.catch_up is CatchUp.run else ON_TIME
    return max(within, ON_TIME)


def _overtaken(rule: ScheduleRule, blackouts: Sequence[Blackout], standing: Standing, due_at: datetime, later: datetime) -> Run:
    """A run that is due with a later one."""
    if standing.obstacle is not None:
        return Run(due_at, Outcome.skipped, standing.obstacle)
    start = start_of(rule, blackouts, standing.key, due_at)
    if start.is_blocked and (is_skipped(rule, start) or is_overtaken(start, later)):
        # The blackout alone took it: no service could have begun it.
        return Run(due_at, Outcome.skipped, Reason.blackout)
    return Run(due_at, Outcome.missed, Reason.newer_due, {"newer_due_at": later.isoformat()})


def _has_more(rule: ScheduleRule, blackouts: Sequence[Blackout], standing: Standing, due: Sequence[datetime]) -> Decision:
    """Each of them has a later one, so none of them is the newest. The last one is for the next look."""
    runs = [_overtaken(rule, blackouts, standing, each, later) for each, later in pairwise(due)]
    return Decision(_undecided(runs, standing), due[-1], due[-1], has_more=True)


def _with_next(
    rule: ScheduleRule, blackouts: Sequence[Blackout], standing: Standing, runs: Sequence[Run], newest: datetime | None
) -> Decision:
    """`newest`: the last instant with an outcome. None: nothing was due."""
    if newest is not None:
        return replace(begin(rule, blackouts, standing.key, newest, standing.decided), runs=_undecided(runs, standing))
    due_at = standing.next_due_at
    return _waits(rule, (), due_at, start_of(rule, blackouts, standing.key, due_at).at if due_at is not None else None)


def _waits(rule: ScheduleRule, runs: tuple[Run, ...], due_at: datetime | None, start_at: datetime | None) -> Decision:
    """A run that waits is looked at again when the next one is due, too: the next one may begin before that wait ends."""
    later = next_due(rule, due_at) if due_at is not None else None
    return Decision(runs, due_at, min((each for each in (start_at, later) if each is not None), default=None))


def _undecided(runs: Sequence[Run], standing: Standing) -> tuple[Run, ...]:
    return tuple(run for run in runs if run.due_at not in standing.decided)
