"""Permits: a resource (so far: a host) has as many rows as jobs may use it at once, and a running job has one of them."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.tables import Slot

_HOST = "host:"
_UNSYNCHRONISED = {"synchronize_session": False}
"""Nobody keeps Slot objects in a session, so there is nothing to bring up to date."""


def host_resource(host_id: str) -> str:
    return _HOST + host_id


def ensure_slots(session: Session, resource: str, n: int) -> None:
    """Let `n` jobs use the resource at once. A slot in use is never taken away: the rest of a cut waits for the next call."""
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
            # Somebody else makes the same slot at the same time.
            continue


def host_is_free(host: ColumnElement[str]) -> ColumnElement[bool]:
    """Has the host a free slot? `host`: its resource."""
    return exists().where(Slot.resource == host, Slot.job_id.is_(None))


class SlotGone(Exception):
    """Another worker took the last slot of the resource."""


def take(session: Session, job_id: str, resource: str) -> None:
    """Raises SlotGone."""
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
