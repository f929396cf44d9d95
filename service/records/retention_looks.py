"""When retention looks at a repository, and the jobs that it asks for. Callers commit.

A look reads thousands of points, so it decides without a lock. The job is made only if no other process has looked since then, and each
point is judged once more before it goes.

What simply goes is removed first. Only then are points merged, each domain in a job of its own: a merge writes whatever stands on what
goes, so points that go as well must be gone before, and damage in one domain must not hold up the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from sqlalchemy import exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.tables import Host, Job, RecoveryPoint, Repository, RetentionLook
from service.model import chains
from service.model.kinds import MERGES_POINTS, REMOVES_POINTS
from service.model.lifecycle import FINAL_STATES, JobState
from service.model.repository import RepositoryState
from service.model.requests import MergeRequest, PruneRequest
from service.model.retention import Goes, Stays
from service.records import queue, retention
from service.records.queue import NewJob
from service.records.retention import Judged

EVERY = timedelta(days=1)
"""From one look at a repository to the next, where nothing happens there."""
AGAIN = timedelta(minutes=10)
"""Until the next look where something that is to go is in use."""
LATE = timedelta(minutes=5)
"""A transaction may be committed so long after the time that its point has. A later one is seen by the look of the day."""
MAX_POINTS = 200
"""Points that one job removes at most. The next look asks for the others, after that job has ended."""
MAX_MERGES = 20
"""Jobs of one look that merge. The next look asks for the others, after those jobs have ended."""
WRITABLE = (RepositoryState.ready.value, RepositoryState.full.value)
"""A repository in another state is looked at when it can be written again."""
_GIVEN_UP = (JobState.failed.value, JobState.cancelled.value)
_UNFINISHED = tuple(state.value for state in JobState if state not in FINAL_STATES)


@dataclass(frozen=True)
class DueLook:
    """`looked_at` None: never. `due_at` None: all domains are looked at, and not only those that have a new point."""

    repository_id: str
    looked_at: datetime | None
    due_at: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """What a look has decided. `why`: by the id of a point. `next_at`: when all domains are looked at again.

    `merges`: for each domain the points that are merged.
    """

    point_ids: Sequence[str]
    why: Mapping[str, Mapping[str, Any]]
    next_at: datetime
    merges: Sequence[Sequence[str]] = ()

    @property
    def is_empty(self) -> bool:
        return not self.point_ids and not self.merges


def due(session: Session, now: datetime) -> list[DueLook]:
    """The repositories to look at now: a point came since the last look, or the time is over, or the clock was ahead."""
    look = RetentionLook
    is_new = exists().where(RecoveryPoint.repository_id == Repository.id, RecoveryPoint.created_at > look.looked_at)
    is_due = or_(look.repository_id.is_(None), look.due_at <= now, look.looked_at > now + EVERY)
    rows = select(Repository.id, look.looked_at, look.due_at, is_due.label("is_due")).outerjoin(look, look.repository_id == Repository.id)
    due_rows = session.execute(rows.where(Repository.state.in_(WRITABLE), or_(is_due, is_new)).order_by(Repository.id))
    return [DueLook(row.id, row.looked_at, None if row.is_due else row.due_at) for row in due_rows]


def job_at_work(session: Session, repository_id: str) -> str | None:
    """A job that removes or merges points there and has not ended, whichever caller asked for it."""
    there = (Job.repository_id == repository_id, Job.kind.in_((REMOVES_POINTS, MERGES_POINTS)), Job.state.in_(_UNFINISHED))
    return session.scalar(select(Job.id).where(*there).limit(1))


def plan(session: Session, look: DueLook, now: datetime) -> Plan:
    """What is to go now, each point after all that stand on it. Also what a job has given up and could not remove."""
    domains = select(RecoveryPoint.domain_id).where(RecoveryPoint.repository_id == look.repository_id)
    if look.due_at is not None and look.looked_at is not None:
        domains = domains.where(RecoveryPoint.created_at > look.looked_at - LATE)
    of_domains = RecoveryPoint.domain_id.in_(domains)
    judged = [each for each in retention.judge(session, of_domains, now) if each.point.repository_id == look.repository_id]
    going = {each.point.id: each for each in judged if not each.decision.stays}
    to_remove = [each for each, of_point in going.items() if not _is_merged(of_point)]
    in_order = chains.tops_first(to_remove, {each.point.id: each.parents for each in judged})
    chosen = in_order[:MAX_POINTS]
    mergeable = _mergeable(session, look.repository_id, going, now)
    merges = mergeable[:MAX_MERGES]
    next_at = look.due_at or now + EVERY
    if len(in_order) > MAX_POINTS or len(mergeable) > MAX_MERGES:
        # The end of the jobs is waited for anyway.
        next_at = now
    elif any(Stays.in_use in each.decision.codes for each in judged) or (chosen and len(going) > len(to_remove)):
        next_at = min(next_at, now + AGAIN)
    return Plan(chosen, {each: why_of(going[each]) for each in [*chosen, *chain.from_iterable(merges)]}, next_at, merges)


def _is_merged(judged: Judged) -> bool:
    return Goes.merged in judged.decision.codes


def _mergeable(session: Session, repository_id: str, going: Mapping[str, Judged], now: datetime) -> list[list[str]]:
    """The points that are merged, each domain apart: the smallest first, so that what does not fit holds up the others least."""
    merged = [each for each in going.values() if _is_merged(each)]
    if not merged or session.scalar(select(Repository.state).where(Repository.id == repository_id)) == RepositoryState.full:
        return []
    given_up = _given_up(session, repository_id, now)
    others = {each.point.domain_id for each in going.values() if not _is_merged(each)}
    by_domain: dict[str, list[Judged]] = {}
    for each in merged:
        if each.point.domain_id not in others:
            by_domain.setdefault(each.point.domain_id, []).append(each)
    groups = [of_domain for of_domain in by_domain.values() if not any(each.point.id in given_up for each in of_domain)]
    in_order = sorted(groups, key=lambda group: sum(each.point.size_bytes or 0 for each in group))
    return [sorted(each.point.id for each in group) for group in in_order]


def _given_up(session: Session, repository_id: str, now: datetime) -> set[str]:
    """The points whose merge failed or was cancelled within the last day: without a pause the next look would only try the same again."""
    ended = (Job.repository_id == repository_id, Job.kind == MERGES_POINTS, Job.state.in_(_GIVEN_UP), Job.finished_at > now - EVERY)
    return {point_id for request in session.scalars(select(Job.request).where(*ended)) for point_id in request["recovery_points"]}


def why_of(judged: Judged) -> dict[str, Any]:
    """By which rule of which track the point goes or stays."""
    origin = judged.origin
    named = {"policy": origin.policy, "track": origin.track} if origin is not None else {"policy": None, "track": None}
    return named | {"reasons": [ground.as_document() for ground in judged.decision.grounds]}


def take_turn(session: Session, look: DueLook, now: datetime, due_at: datetime) -> bool:
    """False: another process has looked meanwhile."""
    values = {"looked_at": now, "due_at": due_at}
    if look.looked_at is None:
        try:
            with session.begin_nested():
                session.execute(insert(RetentionLook).values(repository_id=look.repository_id, **values))
        except IntegrityError:
            # Or the repository was forgotten.
            return False
        return True
    unchanged = (RetentionLook.repository_id == look.repository_id, RetentionLook.looked_at == look.looked_at)
    return session.scalar(update(RetentionLook).where(*unchanged).values(values).returning(RetentionLook.repository_id)) is not None


def ask(session: Session, repository_id: str, chosen: Plan) -> list[str]:
    """The ids of the jobs that remove and merge the points. None where the host of the repository is not known: a job would never run."""
    host_id = session.scalar(select(Host.id).join(Repository, Repository.host_id == Host.id).where(Repository.id == repository_id))
    if host_id is None:
        return []
    requests: list[PruneRequest | MergeRequest] = []
    if chosen.point_ids:
        requests.append(PruneRequest(tuple(chosen.point_ids), repository_id, retention=_of(chosen.point_ids, chosen)))
    requests += [MergeRequest(tuple(ids), repository_id, remove=True, retention=_of(ids, chosen)) for ids in chosen.merges]
    jobs = (NewJob(request.kind.value, None, None, host_id, request.as_document(), {}, repository_id=repository_id) for request in requests)
    return [queue.enqueue(session, new).job_id for new in jobs]


def _of(point_ids: Sequence[str], chosen: Plan) -> dict[str, Mapping[str, Any]]:
    return {each: chosen.why[each] for each in point_ids}
