"""Which points leave a copy, and which stay there, by the rules of the copy or because a person asked. Callers commit.

Only what the repository has removed on purpose can go by a rule: what the repository has, or has lost, stays. So does what is locked, and
everything on which a point stands that stays there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import CopiedPoint, Copy, RecoveryPoint
from service.errors import CopyIncomplete, CopyLocked, CopyPointNeeded, StillpointError
from service.model import chains
from service.model.copied import CopiedState
from service.model.retention import Point, keep
from service.model.retention_rules import Rules
from service.records import copied_points

_WHOLE, _SENDING, _REMOVING = CopiedState.whole.value, CopiedState.sending.value, CopiedState.removing.value


@dataclass(frozen=True)
class There:
    """The points on a copy. `kept_elsewhere`: those that the repository has, or lost without meaning to."""

    rows: Mapping[str, CopiedPoint]
    kept_elsewhere: frozenset[str]

    @classmethod
    def read(cls, session: Session, copy: Copy) -> "There":
        rows = {row.point_id: row for row in copied_points.of_copy(session, copy.id)}
        here = set(session.scalars(select(RecoveryPoint.id).where(RecoveryPoint.repository_id == copy.repository_id)))
        return cls(rows, frozenset(each for each, row in rows.items() if each in here or row.removed_at is None))

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        return {each: tuple(row.parents) for each, row in self.rows.items()}

    def in_order(self, point_ids: Collection[str]) -> list[str]:
        """Each after all that stand on it."""
        return chains.tops_first(sorted(point_ids), self.parents)


@dataclass(frozen=True)
class Leaving:
    """A point that is being removed. `state`: what it was before."""

    folder: str
    state: str


def going(session: Session, copy: Copy, now: datetime) -> list[str]:
    """What goes by the rules of the copy now, each after all that stand on it.

    Also what an earlier job has begun to remove, and what was sent in part and is removed from the repository by now: the rest never comes.
    """
    there = There.read(session, copy)
    begun = {each for each, row in there.rows.items() if row.state == _REMOVING and not _is_locked(row, now)}
    given_up = {each for each, row in there.rows.items() if _is_given_up(there, row, now)}
    stays = set(there.rows) - begun - given_up
    if copy.retention is not None:
        decisions = keep((_point(there.rows[each]) for each in stays), Rules.from_document(copy.retention), now, UTC)
        stays = {each for each, decision in decisions.items() if decision.stays or _is_held(there, each, now)}
    needed = {below for each in stays for below in chains.with_all_below(each, there.parents)}
    may_go = {each for each, row in there.rows.items() if row.state != _REMOVING}
    return there.in_order(begun | (may_go - stays - needed))


def _is_given_up(there: There, row: CopiedPoint, now: datetime) -> bool:
    return row.state == _SENDING and row.point_id not in there.kept_elsewhere and not _is_locked(row, now)


def _is_held(there: There, point_id: str, now: datetime) -> bool:
    row = there.rows[point_id]
    return point_id in there.kept_elsewhere or row.state == _SENDING or _is_locked(row, now)


def _is_locked(row: CopiedPoint, now: datetime) -> bool:
    return row.locked_until is not None and row.locked_until > now


def _point(row: CopiedPoint) -> Point:
    return Point(row.point_id, row.point_in_time_at, tuple(row.parents), row.state == _WHOLE, domain_id=row.domain_id)


def asked_for(session: Session, copy: Copy, point_ids: Sequence[str], now: datetime) -> list[str]:
    """What a person has asked to remove, each after all that stand on it. Raises CopyIncomplete, CopyLocked, CopyPointNeeded."""
    there = There.read(session, copy)
    for point_id in point_ids:
        if (error := _why_it_stays(there, copy, point_id, now, set(point_ids))) is not None:
            raise error
    return there.in_order(point_ids)


def _why_it_stays(there: There, copy: Copy, point_id: str, now: datetime, leaving: Collection[str]) -> StillpointError | None:
    row = there.rows.get(point_id)
    if row is None:
        return CopyIncomplete(copy=copy.name, point=point_id)
    if row.locked_until is not None and _is_locked(row, now):
        return CopyLocked(copy=copy.name, point=point_id, until=rfc3339(row.locked_until))
    parents = there.parents
    needed_by = sorted(each for each in parents if each not in leaving and point_id in chains.with_all_below(each, parents))
    return CopyPointNeeded(copy=copy.name, point=point_id, needed_by=needed_by) if needed_by else None


def begin(session: Session, copy: Copy, point_id: str, job_id: str, *, by_rule: bool) -> Leaving | StillpointError | None:
    """From now on the point does not count as being there. None: the rules keep it by now, or it is gone. An error: why it stays."""
    there, now = There.read(session, copy), database_now(session)
    row = there.rows.get(point_id)
    if row is None or (by_rule and row.state != _REMOVING and point_id not in going(session, copy, now)):
        return None
    leaving = Leaving(row.folder, row.state)
    if row.state != _REMOVING and (error := _why_it_stays(there, copy, point_id, now, {point_id})) is not None:
        return error
    _change(session, copy, point_id, state=_REMOVING, job_id=job_id)
    copied_points.tell_retained(session, [point_id])
    return leaving


def keep_after_all(session: Session, copy: Copy, point_id: str, leaving: Leaving, until: datetime) -> None:
    """The store itself has refused, before this attempt removed anything. What an earlier attempt has begun stays begun."""
    _change(session, copy, point_id, state=leaving.state, locked_until=until)
    copied_points.tell_retained(session, [point_id])


def forget(session: Session, copy: Copy, point_id: str) -> None:
    """Nothing of it is there any more."""
    session.execute(delete(CopiedPoint).where(CopiedPoint.copy_id == copy.id, CopiedPoint.point_id == point_id))


def _change(session: Session, copy: Copy, point_id: str, **values: object) -> None:
    session.execute(update(CopiedPoint).where(CopiedPoint.copy_id == copy.id, CopiedPoint.point_id == point_id).values(values))
