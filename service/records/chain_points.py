"""The recovery points beside the disks of a domain: the files below the overlays. No repository has them. Callers commit.

A job that takes such a point and a job that merges one lock the domain: they never run at the same time.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import RecoveryPoint
from service.errors import PointBelowOverlay, PointPinned, PointsApart
from service.model.chain_links import DiskPoint, PointDisk, renamed
from service.model.intent import Overlay
from service.model.lifecycle import PointState
from service.records import points


def of_domain(session: Session, domain_id: str) -> list[RecoveryPoint]:
    """Oldest first."""
    rows = select(RecoveryPoint).where(RecoveryPoint.domain_id == domain_id, RecoveryPoint.repository_id.is_(None))
    return list(session.scalars(rows.order_by(RecoveryPoint.point_in_time_at, RecoveryPoint.id)))


def as_disk_point(point: RecoveryPoint) -> DiskPoint:
    return DiskPoint(point.id, [PointDisk.from_document(disk) for disk in point.disks], point.state == PointState.leaving)


def must_be_one_domain(asked: Sequence[RecoveryPoint], *, remove: bool) -> str:
    """Its id. Raises PointsApart, PointBelowOverlay, PointPinned."""
    domains = {point.domain_id for point in asked}
    if len(domains) > 1 or any(point.repository_id is not None for point in asked):
        raise PointsApart(points=sorted(point.id for point in asked))
    if not remove:
        raise PointBelowOverlay(point=asked[0].id)
    for point in asked:
        if point.pinned:
            raise PointPinned(point=point.id)
    return domains.pop()


def give_up(session: Session, point_id: str, *, now: datetime, facts: dict[str, Any]) -> None:
    """From now on its files are not a point in time. Raises PointPinned, RecoveryPointNotFound."""
    if points.get(session, point_id).pinned:
        raise PointPinned(point=point_id)
    points.set_state(session, point_id, PointState.leaving, now=now, facts=facts)


def rename(session: Session, heirs: Sequence[str], link: Overlay, allocated: int | None) -> None:
    """The file of these points was merged into the file below: they have the same content there. A repeated call changes nothing."""
    for point_id in heirs:
        disks = renamed(points.get(session, point_id).disks, link, allocated)
        points.change(session, point_id, disks=disks, size_bytes=sum(disk.get("allocated") or 0 for disk in disks))
