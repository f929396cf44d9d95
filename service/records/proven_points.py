"""Which points have a good proof, by kind: beside the proofs of each point, so that a list of all domains need not read them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, literal, select
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.tables import ProvenPoint, RecoveryPoint

_PROVEN = table_of(ProvenPoint)


def write(session: Session, point_id: str, proofs: Sequence[Mapping[str, Any]]) -> None:
    """In the place of what was there. `proofs`: of the point, oldest first. Only the newest of a kind counts."""
    newest = {proof["kind"]: proof for proof in proofs}
    session.execute(delete(_PROVEN).where(_PROVEN.c.point_id == point_id))
    for kind, proof in newest.items():
        if proof["ok"] is True:
            at = literal(datetime.fromisoformat(proof["at"]), _PROVEN.c.at.type)
            values = (RecoveryPoint.id, literal(kind), RecoveryPoint.domain_id, RecoveryPoint.point_in_time_at, at)
            of_point = select(*values).where(RecoveryPoint.id == point_id)
            session.execute(insert(_PROVEN).from_select(["point_id", "kind", "domain_id", "point_in_time_at", "at"], of_point))
