"""Which points stay and which go: a pure function of the points, the rules and the time.

The rules choose as `prune` of Proxmox Backup does (`pbs-datastore/src/prune.rs`, `compute_prune_info` and `mark_selections`):

- The rules choose one after the other: last, hourly, daily, weekly, monthly, yearly. Each looks at the points newest first.
- A period is an hour, a day, an ISO week, a month or a year of the local time. The two hours of a clock that is put back are one.
- A rule keeps the newest point of a period, until it has kept as many as its number says.
- A period in which an earlier rule has kept a point is not counted again, and nothing is kept there.
- A point that a rule passed over, as a newer point of the same period was kept by that rule, is not offered to later rules. One effect is
  not obvious: in a week that belongs to two months, the last point of the old month is passed over, and the monthly rule
  keeps an older point of that month, or none. Equal results were preferred over a better rule.
- Pinned ("protected") points stay, are not counted, and fill no period.

Beyond Proxmox Backup, whose points need no other points:

- Only a whole point counts: the point is good, and so is every point that it needs.
- What a point needs stays as long as the point stays, unless it is merged: see `service.model.retention_merge`.
- A point that is not whole goes only when a newer whole point of its group exists.
- The newest whole point of a group stays, as does a point that is younger than the minimum age.
- The newest whole point with the verdict that is wanted stays, too: while an agent does not answer, points with a lower verdict come
  every night, and must not push out the last one with the right verdict.
- A point in the future stays and is not counted: a wrong clock must not push out good points.
- The points of a domain's track are a group, which is judged apart from others. Only what a point needs reaches over groups.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any

from service.model.chains import Link
from service.model.retention_merge import to_merge
from service.model.retention_rules import Rule, Rules
from service.model.verdict import Verdict, satisfies

Group = tuple[str, str | None]
"""A domain, and a track of its policy or None."""


# What is made for each point is not frozen, as `Link` is not. Nobody changes it.
@dataclass(slots=True)
class Point(Link):
    """`track`: the track of a policy that asked for the point. None: a person did."""

    domain_id: str = ""
    track: str | None = None
    pinned: bool = False
    verdict: Verdict = Verdict.application

    @property
    def group(self) -> Group:
        return self.domain_id, self.track


class Stays(StrEnum):
    """Why a point stays. A rule that chose the point has the same word as the rule."""

    last = "last"
    hourly = "hourly"
    daily = "daily"
    weekly = "weekly"
    monthly = "monthly"
    yearly = "yearly"
    no_rule = "no_rule"
    pinned = "pinned"
    in_future = "in_future"
    young = "young"
    newest_good = "newest_good"
    newest_with_verdict = "newest_with_verdict"
    """All newer whole points of the track have a lower verdict than is wanted."""
    not_replaced = "not_replaced"
    """The point is not whole, and a newer whole point does not exist."""
    needed_by = "needed_by"
    in_use = "in_use"
    """A job that waits or runs needs the point, or a domain has the files of the point below its disks."""
    not_of_policy = "not_of_policy"
    """A person asked for the point."""
    policy_gone = "policy_gone"
    """A policy of the name that the point has does not exist: it was deleted, or has another name now."""
    policy_unreadable = "policy_unreadable"
    track_gone = "track_gone"
    """The policy exists, and does not have the track of the point: the track was removed, or has another name now."""
    policy_paused = "policy_paused"
    repository_away = "repository_away"
    """The repository could not be read when its worker looked last. Its points do not count for others, either."""
    not_in_repository = "not_in_repository"
    """The point is the files below the disks of its domain, and does not lie in a repository."""


class Goes(StrEnum):
    damaged = "damaged"
    needs_damaged = "needs_damaged"
    """The point itself is good. A point that it needs is damaged or missing."""
    replaced = "replaced"
    """A newer point of the same period stays."""
    too_old = "too_old"
    """The rules have kept as many periods as they ask for, and the point is older."""
    merged = "merged"
    """Nothing but points that stand on it make it stay. What they need of it moves into them first."""
    leaving = "leaving"
    """A job has given up the point already, and its files are being removed."""


@dataclass(slots=True)
class Ground:
    code: Stays | Goes
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        return {"code": self.code.value, "facts": dict(self.facts)}


_TOO_OLD = Ground(Goes.too_old)


@dataclass(slots=True)
class Decision:
    """`grounds`: all that make the point stay, or else the one for which the point goes."""

    stays: bool
    grounds: tuple[Ground, ...]

    @property
    def codes(self) -> frozenset[Stays | Goes]:
        return frozenset(ground.code for ground in self.grounds)


@dataclass(frozen=True)
class Terms:
    """`zone`: whose hours, days, weeks, months and years count. `wanted`: the verdict that points of the track are to have."""

    rules: Rules
    zone: tzinfo
    wanted: Verdict = Verdict.none


def keep(points: Iterable[Point], rules: Rules, now: datetime, zone: tzinfo) -> dict[str, Decision]:
    """The decision for each point by its id; every group has the same rules."""
    all_points = list(points)
    return keep_each(all_points, {point.group: Terms(rules, zone) for point in all_points}, now)


def keep_each(points: Iterable[Point], terms: Mapping[Group, Terms | Ground], now: datetime) -> dict[str, Decision]:
    """The decision for each point by its id. A group without terms keeps all its points; a ground in their place says why.

    `points` must be all points that need each other: a point is not whole when a point that it needs is not among them.
    """
    known = {point.id: point for point in points}
    whole = _whole(known)
    groups: dict[Group, list[Point]] = {}
    for point in sorted(known.values(), key=lambda point: (point.at, point.id), reverse=True):
        groups.setdefault(point.group, []).append(point)
    stays: dict[str, list[Ground]] = {}
    choices: dict[Group, _Choice] = {}
    for group, members in groups.items():
        choices[group] = _judge(members, terms.get(group), now, whole, stays)
    needed_by = _add_needed(known, stays)
    merged = _merged(known, stays, needed_by, terms, whole)
    return {
        point.id: Decision(True, tuple(stays[point.id]))
        if point.id in stays
        else Decision(False, (merged[point.id] if point.id in merged else _why_not(point, whole, choices[point.group]),))
        for point in known.values()
    }


def _whole(known: Mapping[str, Point]) -> set[str]:
    """The ids of points that are good with all that they need. Each point is looked at once, parents before children.

    A circle has no first point, so none of its points is whole.
    """
    children = _children(known)
    missing = {point.id: len(set(point.parents)) for point in known.values() if point.parents}
    whole: set[str] = set()
    ready = [point_id for point_id in known if point_id not in missing]
    while ready:
        point_id = ready.pop()
        if known[point_id].is_good:
            whole.add(point_id)
            for child in children.get(point_id, ()):
                missing[child] -= 1
                if not missing[child]:
                    ready.append(child)
    return whole


def _children(known: Mapping[str, Point]) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {}
    for point in known.values():
        if point.parents:
            for parent in set(point.parents):
                children.setdefault(parent, []).append(point.id)
    return children


def _judge(
    members: Sequence[Point], terms: Terms | Ground | None, now: datetime, whole: set[str], stays: dict[str, list[Ground]]
) -> "_Choice":
    """Add all grounds that make a point stay to `stays`. `members`: of one group, newest first. Returns what the rules chose."""
    if terms is None or isinstance(terms, Ground) or terms.rules.keeps_everything:
        ground = terms if isinstance(terms, Ground) else Ground(Stays.no_rule)
        for point in members:
            stays[point.id] = [ground, *([Ground(Stays.pinned)] if point.pinned else [])]
        return _Choice((), UTC)
    past = [point for point in members if point.at <= now and point.id in whole]
    newest = past[0] if past else None
    with_verdict = next((point for point in past if satisfies(point.verdict, terms.wanted, None)), None)
    choice = _Choice([point for point in past if not point.pinned], terms.zone)
    for rule in Rule:
        choice.choose(rule, terms.rules.wanted(rule))
    for point in members:
        grounds = [*choice.kept.get(point.id, ()), *_beyond_rules(point, newest, terms.rules, now, whole)]
        if point is with_verdict and point is not newest:
            grounds.append(Ground(Stays.newest_with_verdict, {"verdict": terms.wanted.value}))
        if grounds:
            stays[point.id] = grounds
    return choice


def _beyond_rules(point: Point, newest: Point | None, rules: Rules, now: datetime, whole: set[str]) -> Iterable[Ground]:
    if point.pinned:
        yield Ground(Stays.pinned)
    if point.at > now:
        yield Ground(Stays.in_future)
    elif now - point.at < timedelta(seconds=rules.minimum_age_s):
        yield Ground(Stays.young, {"minimum_age_s": rules.minimum_age_s})
    if newest is not None and point.id == newest.id:
        yield Ground(Stays.newest_good)
    if point.id not in whole and (newest is None or (point.at, point.id) > (newest.at, newest.id)):
        yield Ground(Stays.not_replaced)


def _why_not(point: Point, whole: set[str], choice: "_Choice") -> Ground:
    if not point.is_good:
        return Ground(Goes.damaged)
    if point.id not in whole:
        return Ground(Goes.needs_damaged)
    return choice.why_not(point.id)


def _add_needed(known: Mapping[str, Point], stays: dict[str, list[Ground]]) -> dict[str, list[str]]:
    """What a point needs stays with it. The facts name only the points that directly inherit: a chain may be long.

    Returns these by the id of the point that they need.
    """
    further = list(stays)
    needed_by: dict[str, list[str]] = {}
    while further:
        point_id = further.pop()
        if not (parents := known[point_id].parents):
            continue
        for parent in set(parents):
            if parent not in known:
                continue
            if parent not in stays and parent not in needed_by:
                further.append(parent)
            needed_by.setdefault(parent, []).append(point_id)
    for parent, inheritors in needed_by.items():
        stays.setdefault(parent, []).append(Ground(Stays.needed_by, {"points": sorted(inheritors)}))
    return needed_by


def _merged(
    known: Mapping[str, Point],
    stays: dict[str, list[Ground]],
    needed_by: Mapping[str, Sequence[str]],
    terms: Mapping[Group, Terms | Ground],
    whole: set[str],
) -> dict[str, Ground]:
    """Take the points out of `stays` whose clusters are merged into those that need them. Returns why each goes."""
    limits: dict[str, int] = {}
    for each in needed_by:
        of_group = terms.get(known[each].group)
        is_only_needed = len(stays[each]) == 1 and stays[each][0].code is Stays.needed_by
        if is_only_needed and isinstance(of_group, Terms) and of_group.rules.merge_at is not None:
            limits[each] = of_group.rules.merge_at
    return {each: Ground(Goes.merged, stays.pop(each)[0].facts) for each in to_merge(needed_by, limits, whole)}


class _Choice:
    """What the rules choose of one group. `candidates`: newest first."""

    def __init__(self, candidates: Sequence[Point], zone: tzinfo) -> None:
        self.kept: dict[str, list[Ground]] = {}
        #: By the id of a point that was not chosen: the point in its place, the rule, and the period.
        self.replaced: dict[str, tuple[str, Rule, str]] = {}
        self._offered = [(point.id, point.at.astimezone(zone)) for point in candidates]
        self._chosen: list[tuple[str, datetime]] = []

    def choose(self, rule: Rule, wanted: int) -> None:
        """A point stays offered to later rules unless this rule kept or passed over the point."""
        if not wanted:
            return
        period_of = _PERIODS.get(rule)
        earlier = {period_of(at): point_id for point_id, at in self._chosen} if period_of else {}
        here: dict[str, str] = {}
        offered: list[tuple[str, datetime]] = []
        for n, (point_id, at) in enumerate(self._offered):
            period = period_of(at) if period_of else point_id
            if period in earlier:
                self.replaced.setdefault(point_id, (earlier[period], rule, period))
                offered.append((point_id, at))
            elif period in here:
                self.replaced.setdefault(point_id, (here[period], rule, period))
            elif len(here) < wanted:
                here[period] = point_id
                self._chosen.append((point_id, at))
                facts = {"number": len(here), "wanted": wanted} | ({"period": period} if period_of else {})
                self.kept[point_id] = [Ground(Stays(rule.value), facts)]
            else:
                offered += self._offered[n:]
                break
        self._offered = offered

    def why_not(self, point_id: str) -> Ground:
        if point_id not in self.replaced:
            return _TOO_OLD
        by, rule, period = self.replaced[point_id]
        return Ground(Goes.replaced, {"by": by, "rule": rule.value, "period": period})


def _iso_week(at: datetime) -> str:
    """The year of an ISO week may differ from that of the day."""
    year, week, _ = at.isocalendar()
    return f"{year:04}-W{week:02}"


_PERIODS: Mapping[Rule, Callable[[datetime], str]] = {
    Rule.hourly: lambda at: f"{at.year:04}-{at.month:02}-{at.day:02}T{at.hour:02}",
    Rule.daily: lambda at: f"{at.year:04}-{at.month:02}-{at.day:02}",
    Rule.weekly: _iso_week,
    Rule.monthly: lambda at: f"{at.year:04}-{at.month:02}",
    Rule.yearly: lambda at: f"{at.year:04}",
}
"""The name of the period in which a local time lies. The rule `last` has none: each point is its own."""
