"""Permits. A resource has as many rows as jobs may use it at the same time, and each running job holds one row.

A resource is a lane of a host or of a repository. A host always has its permits. A repository without rows has no limit.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.tables import Slot
from service.model.kinds import Lane

MAINTENANCE_OF_HOST = 2
"""Maintenance jobs that may run on a host at the same time. Further jobs wait."""
SENDING_OF_HOST = 2
"""Jobs that may carry points to copies on a host at the same time. Further jobs wait."""
_REPOSITORY = "repository:"
POLICY = "policy:"
"""Permits of a policy (`service.records.policy_limits`) begin so."""
_UNSYNCHRONISED = {"synchronize_session": False}
"""No code keeps Slot objects in a session, so there are no objects to update."""


def host_lane(host_id: str, lane: Lane) -> str:
    return f"host:{host_id}:{lane}"


def repository_lane(repository_id: str, lane: Lane) -> str:
    return f"{_REPOSITORY}{repository_id}:{lane}"


def lanes_of(host_id: str) -> list[str]:
    return [host_lane(host_id, lane) for lane in Lane]


def ensure_lanes(session: Session, host_id: str, quick: int, transfers: int) -> None:
    """Set the permits of a host: how many jobs may freeze or look at a guest at the same time, and how many may copy disks."""
    fixed = {Lane.maintenance: MAINTENANCE_OF_HOST, Lane.sending: SENDING_OF_HOST}
    for lane, n in {Lane.quick: quick, Lane.transfer: transfers, **fixed}.items():
        ensure_slots(session, host_lane(host_id, lane), n)


def ensure_slots(session: Session, resource: str, n: int) -> None:
    """Let `n` jobs use the resource at the same time. A slot in use is never deleted, so a reduction may need another call later."""
    rows = session.execute(select(Slot.n, Slot.job_id).where(Slot.resource == resource).order_by(Slot.n)).all()
    if len(rows) < n:
        unused = sorted(set(range(n + len(rows))) - {row.n for row in rows})
        _add(session, resource, unused[: n - len(rows)])
    elif len(rows) > n:
        surplus = [row.n for row in reversed(rows) if row.job_id is None][: len(rows) - n]
        still_free = and_(Slot.resource == resource, Slot.n.in_(surplus), Slot.job_id.is_(None))
        session.execute(delete(Slot).where(still_free), execution_options=_UNSYNCHRONISED)


def _add(session: Session, resource: str, numbers: list[int]) -> None:
    for n in numbers:
        try:
            with session.begin_nested():
                session.execute(insert(Slot).values(resource=resource, n=n, job_id=None))
        except IntegrityError:
            # Another process makes the same slot at the same time.
            continue


@dataclass(frozen=True)
class Permits:
    """`lanes`: the lanes of the host in which a job may begin. `full`: by lane, the repositories in which no job may begin.

    `full_of_policies`: permits of policies of which none is left.
    """

    lanes: frozenset[Lane]
    full: Mapping[Lane, frozenset[str]]
    full_of_policies: frozenset[str] = frozenset()
    #: The names of policies whose jobs may not begin now.
    in_blackout: frozenset[str] = frozenset()


def permits(session: Session, host_id: str) -> Permits:
    free = {row.resource: row.free for row in session.execute(_FREE, {"lanes": lanes_of(host_id)})}
    full: dict[Lane, set[str]] = {}
    for resource, left in free.items():
        if resource.startswith(_REPOSITORY) and not left:
            repository_id, _, lane = resource.removeprefix(_REPOSITORY).rpartition(":")
            full.setdefault(Lane(lane), set()).add(repository_id)
    lanes = frozenset(lane for lane in Lane if free.get(host_lane(host_id, lane)))
    of_policies = frozenset(resource for resource, left in free.items() if resource.startswith(POLICY) and not left)
    return Permits(lanes, {lane: frozenset(repositories) for lane, repositories in full.items()}, of_policies)


_FREE = (
    select(Slot.resource, (func.count() - func.count(Slot.job_id)).label("free"))
    .where(
        or_(
            Slot.resource.in_(bindparam("lanes", expanding=True)),
            Slot.resource.startswith(_REPOSITORY),
            Slot.resource.startswith(POLICY),
        )
    )
    .group_by(Slot.resource)
)


class SlotGone(Exception):
    """Another worker took the last slot of the resource."""


def take(session: Session, job_id: str, host_id: str, lane: Lane, repository_id: str | None = None) -> None:
    """Take a permit of the host, and of the repository if that has a limit. Raises SlotGone."""
    _take(session, job_id, host_lane(host_id, lane))
    if repository_id is not None:
        take_if_limited(session, job_id, repository_lane(repository_id, lane))


def take_if_limited(session: Session, job_id: str, resource: str) -> None:
    """A resource without rows has no limit. Raises SlotGone."""
    if session.scalar(select(exists().where(Slot.resource == resource))):
        _take(session, job_id, resource)


def _take(session: Session, job_id: str, resource: str) -> None:
    if session.scalar(_TAKE, {"wanted": resource, "taker": job_id}, execution_options=_UNSYNCHRONISED) is None:
        raise SlotGone


_FIRST_FREE = (
    select(Slot.n)
    .where(Slot.resource == bindparam("wanted"), Slot.job_id.is_(None))
    .order_by(Slot.n)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_TAKE = update(Slot).where(Slot.resource == bindparam("wanted"), Slot.n == _FIRST_FREE).values(job_id=bindparam("taker")).returning(Slot.n)


def free(session: Session, job_ids: Collection[str]) -> None:
    if job_ids:
        freed = update(Slot).where(Slot.job_id.in_(job_ids)).values(job_id=None)
        session.execute(freed, execution_options=_UNSYNCHRONISED)
