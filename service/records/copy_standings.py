"""How all copies stand: what they have, what waits for them, and what was proven of their stores. For protection and for metrics."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from service.db.tables import CopiedPoint, Copy, Repository
from service.model.copied import CopiedState
from service.model.copy_standing import CopyStanding
from service.model.immutability import Immutability
from service.records import copy_sending, retention
from service.records.copy_sending import Waiting


def read(session: Session) -> list[CopyStanding]:
    """By the names of their repositories, and their own."""
    rows = session.execute(select(Copy, Repository.name).join(Repository).order_by(Repository.name, Copy.name)).all()
    if not rows:
        return []
    there, waiting = _there(session), _waiting(session)
    standings = [_standing(copy, repository, there.get(copy.id)) for copy, repository in rows]
    return [_with_waiting(each, waiting.get(each.id, {})) for each in standings]


def _standing(copy: Copy, repository: str, there: Any | None) -> CopyStanding:
    return CopyStanding(
        id=copy.id,
        name=copy.name,
        repository_id=copy.repository_id,
        repository=repository,
        immutability=Immutability(copy.immutability),
        asks_for_locks=copy.retain_days is not None,
        created_at=copy.created_at,
        proven_at=copy.proven_at,
        newest_at=there.newest_at if there is not None else None,
        locked_until=there.locked_until if there is not None else None,
        damaged=there.damaged if there is not None else 0,
    )


def _there(session: Session) -> dict[str, Any]:
    """By copy."""
    is_whole, is_damaged = (CopiedPoint.state == state.value for state in (CopiedState.whole, CopiedState.damaged))
    at, until = CopiedPoint.point_in_time_at, CopiedPoint.locked_until
    columns = (
        CopiedPoint.copy_id,
        func.max(case((is_whole, at)), type_=at.type).label("newest_at"),
        func.max(case((is_whole, until)), type_=until.type).label("locked_until"),
        func.sum(case((is_damaged, 1), else_=0)).label("damaged"),
    )
    return {row.copy_id: row for row in session.execute(select(*columns).group_by(CopiedPoint.copy_id))}


def _waiting(session: Session) -> dict[str, dict[str, Waiting]]:
    """By copy, and by point: several policies may want a point there."""
    policies = [policy for policy in retention.read_policies(session).values() if policy is not None]
    waiting: dict[str, dict[str, Waiting]] = {}
    for wish in copy_sending.wishes(session, policies):
        waiting.setdefault(wish.copy_id, {}).update({each.point_id: each for each in copy_sending.waiting(session, wish)})
    return waiting


def _with_waiting(standing: CopyStanding, waiting: Mapping[str, Waiting]) -> CopyStanding:
    since = min((each.sealed_at for each in waiting.values()), default=None)
    # A copy that was registered today has not let a point of last year wait for a year.
    return replace(standing, waiting=len(waiting), waiting_since=max(since, standing.created_at) if since is not None else None)
