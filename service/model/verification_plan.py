"""Which points of a repository are verified next: a pure function of the points, their proofs, the promises and the time.

One read of a point reads all points that it stands on, so it proves their bytes as well. In order:

1. Points whose proof a policy promises soon, by the instant at which the promise breaks.
2. Damaged points of which something has changed: what they stand on was healed, or the domain has a new full point, which may hold
   good copies of the bad blocks. Newest first.
3. Points without a proof of their bytes: the newest of each domain, then the second of each domain, and so on.
4. Points whose proof is old, oldest first.

A point that was tried a short time ago waits, so that a storage that fails does not stop the rest. Nothing is read twice in one plan.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from service.model import chains
from service.model.lifecycle import PointState
from service.model.repository import ProofKind

READS_OF_A_BYTE = 2
"""A verify reads each stored byte for its checksum, and again for what the guest sees."""
SOON = timedelta(days=2)
"""A promise that breaks within this time comes before all else."""
OLD = timedelta(days=7)
"""A younger proof is renewed only for a promise."""
PAUSE = timedelta(days=1)
"""After a try a point waits so long for the next one, whatever came of the try."""
MAX_PLANNED = 100
"""Points of one plan. The next plan has the others."""


class Why(StrEnum):
    promised = "promised"
    damaged = "damaged"
    missing = "missing"
    old = "old"


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point of one repository. `at`: when it was sealed. `proven`: the newest proof of each kind, where that says that the point is good.

    `blamed`: the points below whose damage is the only fault of this one, as its newest proof says. `tried_at`: by plan.
    `healed_at`: when files of it, or of what it stands on, were last made again. `is_being_read`: a verify by plan reads it now.
    """

    id: str
    domain_id: str
    at: datetime
    parents: tuple[str, ...] = ()
    stored_bytes: int = 0
    state: str = PointState.sealed.value
    proven: Mapping[str, datetime] = field(default_factory=dict)
    blamed: tuple[str, ...] = ()
    healed_at: datetime | None = None
    tried_at: datetime | None = None
    is_being_read: bool = False


class PromisedProof(NamedTuple):
    """Some good point of a domain has a proof of this kind that is not older than `max_age`. `since`: when the promise began."""

    kind: ProofKind
    max_age: timedelta
    since: datetime


class Planned(NamedTuple):
    """`due_at`: when a promise breaks. `proven_at`: the date of the proof that is renewed."""

    point_id: str
    domain_id: str
    why: Why
    cost_bytes: int
    due_at: datetime | None = None
    proven_at: datetime | None = None


def plan(points: Iterable[StoredPoint], promises: Mapping[str, PromisedProof], now: datetime, *, limit: int = MAX_PLANNED) -> list[Planned]:
    """`promises`: by the id of the domain."""
    by_id = {point.id: point for point in points}
    parents = {point.id: point.parents for point in by_id.values()}
    known = _Known(by_id, promises, now, _proven_with_those_above(by_id, now))
    planned: list[Planned] = []
    read = {below for point in by_id.values() if point.is_being_read for below in chains.with_all_below(point.id, parents)}
    for point, why, due_at in known.in_order():
        if len(planned) >= limit:
            break
        if point.id in read:
            continue
        chain = chains.with_all_below(point.id, parents)
        read |= chain
        cost = READS_OF_A_BYTE * sum(by_id[each].stored_bytes for each in chain if each in by_id)
        planned.append(Planned(point.id, point.domain_id, why, cost, due_at, known.proven_at.get(point.id)))
    return planned


def _proven_with_those_above(points: Mapping[str, StoredPoint], now: datetime) -> dict[str, datetime]:
    """When the bytes of each point were last proven, by its own proof or by that of a point that stands on it.

    A proof in the future was dated by a wrong clock, and does not count.
    """
    own = [(point.proven[ProofKind.bytes], point.id) for point in points.values() if ProofKind.bytes in point.proven]
    proven: dict[str, datetime] = {}
    for at, point_id in sorted(own, reverse=True):
        further = [point_id] if at <= now + PAUSE else []
        while further:
            each = further.pop()
            # What is below a point that has a newer proof has it, too.
            if each in points and each not in proven:
                proven[each] = at
                further += points[each].parents
    return proven


@dataclass(frozen=True)
class _Known:
    points: Mapping[str, StoredPoint]
    promises: Mapping[str, PromisedProof]
    now: datetime
    proven_at: Mapping[str, datetime]

    def in_order(self) -> Iterator[tuple[StoredPoint, Why, datetime | None]]:
        newest_first = self._newest_first()
        yield from ((point, Why.promised, due) for due, point in self._promised(newest_first))
        yield from ((point, Why.damaged, None) for point in self._damaged(newest_first))
        yield from ((point, Why.missing, None) for point in self._missing(newest_first))
        yield from ((point, Why.old, None) for point in self._old())

    def _newest_first(self) -> dict[str, list[StoredPoint]]:
        """By domain."""
        of_domain: dict[str, list[StoredPoint]] = {}
        for point in sorted(self.points.values(), key=lambda each: (each.at, each.id), reverse=True):
            of_domain.setdefault(point.domain_id, []).append(point)
        return of_domain

    def _waits(self, point: StoredPoint) -> bool:
        return point.tried_at is not None and timedelta(0) <= self.now - point.tried_at < PAUSE

    def _can_be_read(self, points: Iterable[StoredPoint]) -> list[StoredPoint]:
        return [point for point in points if point.state == PointState.sealed and not self._waits(point)]

    def _promised(self, newest_first: Mapping[str, Sequence[StoredPoint]]) -> list[tuple[datetime, StoredPoint]]:
        promised = []
        for domain_id, promise in self.promises.items():
            there = newest_first.get(domain_id, ())
            good = self._can_be_read(there)
            dates = [point.proven[promise.kind] for point in there if promise.kind in point.proven]
            proven_at = max((at for at in dates if at <= self.now + PAUSE), default=promise.since)
            due = max(proven_at, promise.since) + promise.max_age
            # Not all the time where less than SOON is promised: a proof is renewed after half of its time.
            if good and due - min(SOON, promise.max_age / 2) <= self.now:
                promised.append((due, good[0]))
        return sorted(promised, key=lambda each: (each[0], each[1].id))

    def _damaged(self, newest_first: Mapping[str, Sequence[StoredPoint]]) -> list[StoredPoint]:
        hopeful = []
        for points in newest_first.values():
            # An increment hardly ever holds a block that is missing. With each of them the whole chain would be read again.
            changes = [point.at for point in points if point.state == PointState.sealed and not point.parents]
            changes += [point.healed_at for point in points if point.healed_at is not None]
            changed_at = max(changes, default=None)
            for point in points:
                if point.state == PointState.damaged and not self._waits(point) and self._has_hope(point, changed_at):
                    hopeful.append(point)
        return sorted(hopeful, key=lambda each: (each.at, each.id), reverse=True)

    def _has_hope(self, point: StoredPoint, changed_at: datetime | None) -> bool:
        """`changed_at`: when the domain last got a good full point, or something of it was healed."""
        if point.tried_at is None or (changed_at is not None and changed_at > point.tried_at):
            return True
        below = [self.points[each].state for each in point.blamed if each in self.points]
        return bool(below) and all(state == PointState.sealed for state in below)

    def _missing(self, newest_first: Mapping[str, Sequence[StoredPoint]]) -> list[StoredPoint]:
        ranked = []
        for points in newest_first.values():
            missing = [point for point in self._can_be_read(points) if point.id not in self.proven_at]
            ranked += [(rank, -point.at.timestamp(), point.id) for rank, point in enumerate(missing)]
        return [self.points[point_id] for _, _, point_id in sorted(ranked)]

    def _old(self) -> list[StoredPoint]:
        """The highest of the points that share a proof comes first: its read proves the others."""
        old = []
        for point in self._can_be_read(self.points.values()):
            at = self.proven_at.get(point.id)
            if at is not None and self.now - at >= OLD:
                old.append((at, -point.at.timestamp(), point.id))
        return [self.points[point_id] for _, _, point_id in sorted(old)]
