"""Which points may be removed now, and how they leave the list. Callers commit.

What begins to use a point (a restore, a verify, a backup that builds on it) and what gives it up take turns: `turn_of` in the same
transaction. So a point is not taken from under a job that reads it.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from sqlalchemy import Text, and_, cast, delete, func, or_, select, update
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.engine import database_now, take_turn
from service.db.tables import CopiedPoint, Domain, Event, Host, Job, RecoveryPoint, Repository
from service.errors import PointInUse, PointNeeded, PointNotSealed, PointPinned, StillpointError
from service.model import chains
from service.model.copied import CopiedState
from service.model.kinds import kind_of
from service.model.lifecycle import FINAL_STATES, JobState, PointState
from service.model.proofs import is_known_bad
from service.records import points

_POINTS = table_of(RecoveryPoint)
_UNFINISHED = tuple(state.value for state in JobState if state not in FINAL_STATES)
LATE_EVENTS = 1000
"""Events with a smaller id that may be committed later: transactions of PostgreSQL do not end in the order of their ids."""
_AT_WORK = (JobState.running.value, JobState.interrupted.value)


def turn_of(session: Session, repository_id: str) -> datetime:
    """Wait until no other transaction begins to use points of the repository, or gives one up. Returns the time of the database."""
    return take_turn(session, f"points:{repository_id}")


@dataclass(frozen=True)
class Neighbours:
    """The points of one repository, and who uses them."""

    parents: Mapping[str, Sequence[str]]
    #: By the id of a point: the jobs that read it or a point that stands on it, and backups that may build on it.
    used_by: Mapping[str, Collection[str]]
    #: By the id of a point: the domains that have its files below their disks, as an instant restore that was cancelled leaves them.
    read_by: Mapping[str, Collection[str]]

    @classmethod
    def of(cls, session: Session, repository_id: str, domain_ids: Collection[str], *, only_begun: bool = False) -> "Neighbours":
        """Only those of the domains: no point stands on a point of another domain. `only_begun`: jobs that wait are left out."""
        columns = (RecoveryPoint.id, RecoveryPoint.parents, RecoveryPoint.domain_id, RecoveryPoint.folder)
        of_domains = (RecoveryPoint.repository_id == repository_id, RecoveryPoint.domain_id.in_(domain_ids))
        rows = session.execute(select(*columns).where(*of_domains)).all()
        return cls.among(session, repository_id, rows, {row.id: tuple(row.parents or ()) for row in rows}, only_begun=only_begun)

    @classmethod
    def among(
        cls,
        session: Session,
        repository_id: str,
        rows: Sequence[Any],
        parents: Mapping[str, Sequence[str]],
        *,
        only_begun: bool = False,
    ) -> "Neighbours":
        """`rows`: the id, domain and folder of each point of the domains there. `parents`: by the id of a point."""
        domain_of = {row.id: row.domain_id for row in rows}
        used: dict[str, set[str]] = {}
        for job in _jobs_at(session, repository_id):
            for point_id in _points_of(job, parents, domain_of, only_begun=only_begun):
                used.setdefault(point_id, set()).add(job.id)
        for point_id, job_id in _sent_now(session, parents):
            used.setdefault(point_id, set()).add(job_id)
        path = session.scalar(select(Repository.path).where(Repository.id == repository_id))
        return cls(parents, used, _read_by(session, str(path), {f"{path}/{row.folder}": row.id for row in rows}))

    def standing_on(self, point_ids: Iterable[str]) -> set[str]:
        """All points that need one of these, without these."""
        asked = set(point_ids)
        return {each for each in self.parents if each not in asked and chains.with_all_below(each, self.parents) & asked}

    def newest_first(self, point_ids: Collection[str]) -> list[str]:
        """So that no point is removed before those that stand on it."""
        return sorted(point_ids, key=lambda each: (-len(chains.with_all_below(each, self.parents)), each))


def _sent_now(session: Session, point_ids: Collection[str]) -> Sequence[Any]:
    """Point and job, of the points that a job sends to a copy now."""
    sending = select(CopiedPoint.point_id, CopiedPoint.job_id).join(Job, Job.id == CopiedPoint.job_id)
    at_work = sending.where(CopiedPoint.state == CopiedState.sending.value, Job.state.in_(_UNFINISHED))
    return [row for row in session.execute(at_work).all() if row.point_id in point_ids]


def _jobs_at(session: Session, repository_id: str) -> Sequence[Any]:
    """The jobs that have not ended, and those that ended after their host published its domains last."""
    is_unfinished = Job.state.in_(_UNFINISHED)
    is_not_published = and_(Job.result.is_not(None), or_(Host.inventory_at.is_(None), Job.finished_at >= Host.inventory_at))
    columns = (Job.id, Job.kind, Job.state, Job.domain_id, Job.request, Job.intent, Job.result)
    jobs = select(*columns).outerjoin(Host, Host.id == Job.host_id).where(Job.repository_id == repository_id)
    return session.execute(jobs.where(or_(is_unfinished, is_not_published))).all()


def _points_of(job: Any, parents: Mapping[str, Sequence[str]], domain_of: Mapping[str, str], *, only_begun: bool) -> set[str]:
    """The points that the job uses. A backup that has begun may build on any point of its domain, also while it waits for its next
    attempt. One that has not decides when it begins."""
    has_ended = job.state not in _UNFINISHED
    if has_ended and not ((job.result or {}).get("restore") or {}).get("reads_repository"):
        return set()
    has_begun = job.state in _AT_WORK or job.intent is not None
    if (read := job.request.get("recovery_point")) is not None:
        return chains.with_all_below(str(read), parents) if has_begun or has_ended or not only_begun else set()
    if kind_of(job.kind).makes_point and has_begun:
        return {each for each, domain_id in domain_of.items() if domain_id == job.domain_id}
    return set()


def _read_by(session: Session, path: str, points_in: Mapping[str, str]) -> dict[str, set[str]]:
    """`points_in`: the id of the point of each folder. As the hosts have published their domains last."""
    readers: dict[str, set[str]] = {}
    # The database looks first: there are thousands of domains, and hardly any of them reads a repository.
    named = cast(Domain.document, Text).contains(json.dumps(path)[1:-1], autoescape=True)
    for domain in session.execute(select(Domain.name, Domain.document).where(named)):
        for disk in domain.document.get("disks") or ():
            for file in disk.get("chain") or ():
                if (point_id := points_in.get(str(PurePath(file or "").parent))) is not None:
                    readers.setdefault(point_id, set()).add(domain.name)
    return readers


def why_it_stays(point: RecoveryPoint, neighbours: Neighbours, going: Collection[str] = ()) -> StillpointError | None:
    """None: the point may be removed. `going`: the points that are removed with it, before it."""
    if point.repository_id is None:
        return PointNotSealed(point=point.id)
    if point.pinned:
        return PointPinned(point=point.id)
    if needed_by := sorted(neighbours.standing_on([point.id]) - set(going)):
        return PointNeeded(point=point.id, needed_by=needed_by)
    jobs, domains = sorted(neighbours.used_by.get(point.id, ())), sorted(neighbours.read_by.get(point.id, ()))
    if jobs or domains:
        return PointInUse(point=point.id, jobs=jobs, domains=domains)
    return None


def must_go(session: Session, repository_id: str, asked: Sequence[RecoveryPoint], *, with_needing: bool) -> None:
    """Raises the error of the first point that stays: PointPinned, PointNeeded, PointInUse."""
    neighbours = Neighbours.of(session, repository_id, {point.domain_id for point in asked})
    going = {point.id for point in asked}
    further = neighbours.standing_on(going) if with_needing else set()
    going |= further
    for point in [*asked, *(points.get(session, each) for each in sorted(further))]:
        if point.state != PointState.leaving and (stays := why_it_stays(point, neighbours, going)) is not None:
            raise stays


def give_up(session: Session, point_id: str, *, now: datetime, facts: Mapping[str, Any]) -> bool:
    """From now on nothing begins to use the point. False: it was given up before."""
    return points.set_state(session, point_id, PointState.leaving, now=now, facts=dict(facts))


def keep_after_all(session: Session, point_id: str, *, now: datetime, facts: Mapping[str, Any]) -> None:
    """The repository itself has refused, before any file was touched: the point is what it was."""
    to = PointState.damaged if is_known_bad(points.get(session, point_id).proofs) else PointState.sealed
    points.set_state(session, point_id, to, now=now, facts=dict(facts))


def take_off_the_list(session: Session, point_id: str, *, now: datetime, facts: Mapping[str, Any]) -> None:
    """After its files are gone. The event stays."""
    change = update(_POINTS).where(_POINTS.c.id == point_id)
    points.move(session, change, PointState.leaving, PointState.removed, now=now, facts=dict(facts))
    # From now on the rules of a copy may let it go there, too.
    session.execute(update(CopiedPoint).where(CopiedPoint.point_id == point_id).values(removed_at=now))
    session.execute(delete(_POINTS).where(_POINTS.c.id == point_id, _POINTS.c.state == PointState.removed.value))


def to_remove(session: Session, repository_id: str, asked: Collection[str], *, with_needing: bool) -> list[str]:
    """The points that are asked for and what earlier jobs have given up and could not remove: each after all that stand on it."""
    there = select(RecoveryPoint.id, RecoveryPoint.domain_id, RecoveryPoint.state).where(RecoveryPoint.repository_id == repository_id)
    is_leaving = RecoveryPoint.state == PointState.leaving.value
    rows = session.execute(there.where(or_(is_leaving, RecoveryPoint.id.in_(asked)))).all()
    neighbours = Neighbours.of(session, repository_id, {row.domain_id for row in rows})
    wanted = set(asked) | {row.id for row in rows if row.state == PointState.leaving}
    if with_needing:
        wanted |= neighbours.standing_on(asked)
    return neighbours.newest_first(wanted)


@dataclass(frozen=True)
class EventPosition:
    """Where the events stood. `at`: by the clock of the database."""

    event_id: int
    at: datetime

    @classmethod
    def now(cls, session: Session) -> "EventPosition":
        return cls(session.scalar(select(func.max(Event.id))) or 0, database_now(session))


def removed_since(session: Session, position: EventPosition) -> set[str]:
    """The points that were removed after the position: a list of folders that is older still shows them."""
    later = (Event.id > position.event_id - LATE_EVENTS, Event.at >= position.at)
    removed = select(Event.point_id).where(*later, Event.moved_to == PointState.removed.value)
    return {point_id for point_id in session.scalars(removed) if point_id is not None}
