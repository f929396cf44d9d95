"""What protection needs of a policy: its promise, and when each of its tracks is due and can begin."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

from service.model.backup_policy import BackupPolicy
from service.model.blackouts import Blackout
from service.model.protection_facts import PolicyFacts, TrackFacts
from service.model.schedule import due_between, is_overtaken, is_skipped, start_of
from service.model.schedule_rule import ScheduleRule

LOOK_AHEAD_DAYS = 400
"""Days. Gaps between runs after them are not looked at: the longest gap of a yearly rule is among them."""
MAX_INSTANTS = 800
"""Instants of a track that are looked at. Of a rule that names one every 15 minutes, that is more than a week."""
_STEP = timedelta(hours=1)
"""The instants are computed once for each step."""


class _Instants(NamedTuple):
    due: tuple[datetime, ...]
    starts: tuple[datetime, ...]


def plan_of(policy: BackupPolicy, repository_ids: Mapping[str, str], now: datetime) -> PolicyFacts:
    """`repository_ids`: by each name and id under which a policy may name a repository."""
    begin = now - timedelta(seconds=now.timestamp() % _STEP.total_seconds())
    tracks = []
    for track in policy.tracks:
        instants = _instants(track.schedule, policy.blackouts, begin)
        named = track.job.copying.repository if track.job.copying is not None else None
        repository_id = repository_ids.get(named, named) if named is not None else None
        tracks.append(TrackFacts(track.name, track.job.kind.value, repository_id, instants.due, instants.starts))
    return PolicyFacts(policy.name, policy.promise, tuple(tracks), policy.paused)


@lru_cache(maxsize=4096)
def _instants(rule: ScheduleRule, blackouts: tuple[Blackout, ...], begin: datetime) -> _Instants:
    """Without jitter, which differs for each domain."""
    rule = replace(rule, jitter_s=0)
    due = due_between(rule, begin, begin + timedelta(days=LOOK_AHEAD_DAYS), MAX_INSTANTS)
    starts = []
    for due_at, later in zip_longest(due, due[1:]):
        start = start_of(rule, blackouts, "", due_at)
        if not is_skipped(rule, start) and not is_overtaken(start, later):
            starts.append(start.at)
    return _Instants(tuple(due), tuple(starts))
