"""What copies want because a track of a policy names them: its new points, sent by jobs that nobody asks for. Callers commit.

A point waits until it is there: a service that was away, a store that did not answer and a blackout delay it, and cost nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, exists, select
from sqlalchemy.orm import Session

from service.db.engine import take_turn
from service.db.tables import CopiedPoint, Copy, Job, JobLabel, RecoveryPoint, Repository
from service.model.backup_policy import BackupPolicy
from service.model.copied import CopiedState, CopyAction
from service.model.lifecycle import FINAL_STATES, JobState, PointState
from service.model.origin import CLEARED_LABEL, COPY_LABEL, POLICY_LABEL, TRACK_LABEL
from service.model.proofs import is_known_bad
from service.model.requests import CopyRequest
from service.records import copies, copy_removal, queue
from service.records.copy_orders import PROVED
from service.records.orders import order_of

MAX_SENT = 200
"""Points that one job is asked to send, the newest ones, and what they stand on. The next job sends the others."""
PAUSE = timedelta(hours=1)
"""After a job of the policy that did not send everything, the next one is asked for."""


@dataclass(frozen=True)
class Wish:
    """The points of these tracks of a policy belong on the copy."""

    copy_id: str
    repository_id: str
    policy: str
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class Waiting:
    """A point that is to be sent. `at`: its point in time. `sealed_at`: since when it could be sent."""

    point_id: str
    at: datetime
    sealed_at: datetime


def wishes(session: Session, policies: Iterable[BackupPolicy]) -> list[Wish]:
    """What policies want that are not paused. What names a copy or a repository that is not there wishes nothing."""
    naming = [policy for policy in policies if not policy.paused and any(track.copies for track in policy.tracks)]
    if not naming:
        return []
    known = _Places.read(session)
    tracks_of: dict[tuple[str, str, str], list[str]] = {}
    for policy in naming:
        for track in policy.tracks:
            repository_id = known.repository(track.job.copying.repository) if track.job.copying is not None else None
            if repository_id is None:
                continue
            for name in track.copies:
                if (copy_id := known.copy(repository_id, name)) is not None:
                    tracks_of.setdefault((copy_id, repository_id, policy.name), []).append(track.name)
    return [Wish(*key, tuple(dict.fromkeys(tracks))) for key, tracks in tracks_of.items()]


@dataclass(frozen=True)
class _Places:
    """By name or id."""

    repositories: Mapping[str, str]
    copies: Mapping[tuple[str, str], str]

    @classmethod
    def read(cls, session: Session) -> "_Places":
        rows = session.execute(select(Repository.id, Repository.name, Repository.registered_id)).all()
        named = {row.name: row.id for row in rows} | {row.registered_id: row.id for row in rows} | {row.id: row.id for row in rows}
        copies = session.execute(select(Copy.id, Copy.name, Copy.repository_id)).all()
        of_names = {(row.repository_id, row.name): row.id for row in copies}
        return cls(named, of_names | {(row.repository_id, row.id): row.id for row in copies})

    def repository(self, name: str) -> str | None:
        return self.repositories.get(name)

    def copy(self, repository_id: str, name: str) -> str | None:
        return self.copies.get((repository_id, name))


def waiting(session: Session, wish: Wish) -> list[Waiting]:
    """Its points that the copy has not whole, newest first. A point that is known to be bad does not wait: it is never sent."""
    is_there = exists().where(
        CopiedPoint.copy_id == wish.copy_id, CopiedPoint.point_id == RecoveryPoint.id, CopiedPoint.state == CopiedState.whole.value
    )
    of_tracks = and_(
        RecoveryPoint.labels[POLICY_LABEL].as_string() == wish.policy, RecoveryPoint.labels[TRACK_LABEL].as_string().in_(wish.tracks)
    )
    columns = (RecoveryPoint.id, RecoveryPoint.point_in_time_at, RecoveryPoint.created_at, RecoveryPoint.proofs)
    sealed = (RecoveryPoint.repository_id == wish.repository_id, RecoveryPoint.state == PointState.sealed.value)
    rows = session.execute(
        select(*columns).where(*sealed, of_tracks, ~is_there).order_by(RecoveryPoint.point_in_time_at.desc(), RecoveryPoint.id)
    )
    return [Waiting(row.id, row.point_in_time_at, row.created_at) for row in rows if not is_known_bad(row.proofs)]


def may_ask(session: Session, wish: Wish, now: datetime) -> bool:
    """Nobody sends there for the policy, and the last job that did so and failed has ended long enough ago."""
    jobs = select(Job.state, Job.finished_at).join(JobLabel, JobLabel.job_id == Job.id)
    of_wish = jobs.where(JobLabel.key == COPY_LABEL, JobLabel.value == wish.copy_id, Job.labels[POLICY_LABEL].as_string() == wish.policy)
    last = session.execute(of_wish.order_by(JobLabel.created_at.desc(), JobLabel.job_id.desc()).limit(1)).first()
    if last is None or last.state == JobState.succeeded:
        return True
    return last.state in FINAL_STATES and (last.finished_at is None or not timedelta() <= now - last.finished_at < PAUSE)


def ask(session: Session, wish: Wish) -> str | None:
    """The id of the job. None: another process has asked, or nothing is left to send. Raises HostUnknown: no worker of its host was seen.

    The label of the policy lets the job wait in a blackout.
    """
    now = take_turn(session, f"sending:{wish.copy_id}")
    newest = tuple(point.point_id for point in waiting(session, wish)[:MAX_SENT])
    if not newest or not may_ask(session, wish, now):
        return None
    asked = CopyRequest(repository=wish.repository_id, copy=wish.copy_id, action=CopyAction.send, recovery_points=newest)
    labels = {**PROVED, POLICY_LABEL: wish.policy, COPY_LABEL: wish.copy_id}
    return queue.enqueue(session, order_of(session, asked, labels).as_new_job()).job_id


# --- the end of what was sent ---------------------------------------------------------------------


def with_rules(session: Session) -> Sequence[Copy]:
    """The copies from which something may be removed by itself."""
    begun = exists().where(CopiedPoint.copy_id == Copy.id, CopiedPoint.state == CopiedState.removing.value)
    return session.scalars(select(Copy).where(Copy.retention.is_not(None) | begun).order_by(Copy.id)).all()


def may_remove(session: Session, copy: Copy, now: datetime) -> bool:
    """Something is to go, nobody works at the copy, and no removal by rule has failed lately."""
    if copies.jobs_at_work(session, copy.id) or not copy_removal.going(session, copy, now):
        return False
    jobs = select(Job.state, Job.finished_at).join(JobLabel, JobLabel.job_id == Job.id)
    of_copy = jobs.where(JobLabel.key == CLEARED_LABEL, JobLabel.value == copy.id)
    last = session.execute(of_copy.order_by(JobLabel.created_at.desc(), JobLabel.job_id.desc()).limit(1)).first()
    return last is None or last.state == JobState.succeeded or not timedelta() <= now - (last.finished_at or now) < PAUSE


def ask_to_remove(session: Session, copy: Copy) -> str | None:
    """The id of the job. None: another process has asked, or nothing is to go. Raises HostUnknown."""
    now = take_turn(session, f"sending:{copy.id}")
    if not may_remove(session, copy, now):
        return None
    asked = CopyRequest(repository=copy.repository_id, copy=copy.id, action=CopyAction.remove)
    return queue.enqueue(session, order_of(session, asked, {**PROVED, CLEARED_LABEL: copy.id}).as_new_job()).job_id
