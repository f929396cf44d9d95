"""What a policy would do in the next days, for its preview: the runs of each domain and track, and the load by hour.

What only the time itself shows is not in it: whether a run has ended before the next one, and whether the service is there.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.model.backup_policy import BackupPolicy
from service.model.schedule import Outcome, Reason, due_between, is_overtaken, is_skipped, key_of, next_due, start_of
from service.model.selectors import Domain
from service.model.track import Track

MAX_PLANNED = 100_000
"""Runs that a preview lists at most. Of the rest only the number of domains that were left out is told."""
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """`starts_at` None: the run is not begun, for `reason`."""

    domain: Domain
    track: str
    due_at: datetime
    outcome: Outcome
    starts_at: datetime | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How many runs begin within an hour, by track. `hour`: its begin, in UTC."""

    hour: datetime
    starts: int
    by_track: dict[str, int]


@dataclass(frozen=True)
class Week:
    """`runs`: in the order of the domains, then of the tracks, then of their time. `left_out`: domains that are not in it."""

    runs: tuple[PlannedRun, ...]
    load: tuple[Load, ...]
    left_out: int = 0

    @property
    def busiest(self) -> Load | None:
        return max(self.load, key=lambda load: load.starts, default=None)


def week(policy: BackupPolicy, domains: Sequence[Domain], begin: datetime, until: datetime, limit: int = MAX_PLANNED) -> Week:
    """Runs that are due at `begin` or later, and before `until`. `domains`: those that the policy has."""
    due = {track.name: _due(track, begin, until) for track in policy.tracks}
    runs: list[PlannedRun] = []
    shown = 0
    for domain in domains:
        of_domain = [run for track in policy.tracks for run in _runs(policy, track, domain, due[track.name])]
        if len(runs) + len(of_domain) > limit:
            break
        runs += of_domain
        shown += 1
    return Week(tuple(runs), tuple(_load(policy, runs, begin, until)), left_out=len(domains) - shown)


def _due(track: Track, begin: datetime, until: datetime) -> list[tuple[datetime, datetime | None]]:
    """Each instant with the one after it."""
    due = due_between(track.schedule, begin - timedelta(microseconds=1), until - timedelta(microseconds=1))
    after: list[datetime | None] = [*due[1:], next_due(track.schedule, due[-1])] if due else []
    return list(zip(due, after, strict=True))


def _runs(policy: BackupPolicy, track: Track, domain: Domain, due: Sequence[tuple[datetime, datetime | None]]) -> Iterator[PlannedRun]:
    """As `service.model.schedule.decide` would decide them, if it looked all the time."""
    key = key_of(track.name, domain.id)
    for due_at, later in due:
        start = start_of(track.schedule, policy.blackouts, key, due_at)
        reason, outcome = None, Outcome.skipped
        if policy.paused:
            reason = Reason.paused
        elif is_skipped(track.schedule, start):
            reason = Reason.blackout
        elif is_overtaken(start, later):
            reason, outcome = (Reason.blackout, outcome) if start.is_blocked else (Reason.newer_due, Outcome.missed)
        if reason is None:
            yield PlannedRun(domain, track.name, due_at, Outcome.queued, starts_at=start.at)
        else:
            yield PlannedRun(domain, track.name, due_at, outcome, reason=reason)


def _load(policy: BackupPolicy, runs: Sequence[PlannedRun], begin: datetime, until: datetime) -> Iterator[Load]:
    """For every hour, also of those in which nothing begins."""
    starts = Counter((_hour(run.starts_at), run.track) for run in runs if run.starts_at is not None)
    hour = _hour(begin)
    while hour < until:
        by_track = {track.name: starts[hour, track.name] for track in policy.tracks if starts[hour, track.name]}
        yield Load(hour, sum(by_track.values()), by_track)
        hour += HOUR


def _hour(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
