"""A restore planned with rows: the point, the points from which it inherits, and the domains that its host has published."""

from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from service.db.tables import RecoveryPoint
from service.model import restore_plan
from service.model.requests import RestoreRequest
from service.model.restore_facts import HostFacts, PointFacts
from service.records import domain_controllers, known_domains, restore_rates
from service.records.orders import host_of_restore, restorable_point, with_identity


def preview_of(session: Session, asked: RestoreRequest) -> dict[str, Any]:
    """Raises the errors of `restorable_point` and of `restore_plan.plan`, and HostUnknown."""
    point, repository = restorable_point(session, asked)
    host_id = host_of_restore(session, asked, point, repository)
    request = with_identity(session, asked, point)
    rate = restore_rates.rate(session, host_id)
    domains, elsewhere = known_domains.of_host(session, host_id), known_domains.of_other_hosts(session, host_id)
    facts = HostFacts(host_id=host_id, mark=restore_plan.PREVIEW_MARK, domains=domains, elsewhere=elsewhere, rate_bytes_s=rate)
    return restore_plan.plan(_point_facts(session, point), request, facts).as_preview()


def _point_facts(session: Session, point: RecoveryPoint) -> PointFacts:
    stored = {disk["target"]: _stored_bytes(session, point, disk) for disk in point.disks}
    return replace(
        PointFacts.of_row(point, None),
        is_domain_controller=domain_controllers.is_controller(session, point.domain_id),
        stored_bytes={target: size for target, size in stored.items() if size is not None},
    )


def _stored_bytes(session: Session, point: RecoveryPoint, disk: dict[str, Any]) -> int | None:
    """The sum over the disk's file and all files below it. None: one of them is not on record."""
    total, seen, layer = 0, {point.id}, disk
    while layer.get("stored_bytes") is not None:
        total += int(layer["stored_bytes"])
        parent_id = layer.get("parent")
        if parent_id is None:
            return total
        parent = session.get(RecoveryPoint, parent_id)
        below = [each for each in parent.disks if each["target"] == layer["target"]] if parent is not None else []
        if not below or parent_id in seen:
            return None
        seen.add(parent_id)
        (layer, *_) = below
    return None
