"""Puts the points that lie in a repository on record. Nothing in the repository is changed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import RecoveryPoint
from service.errors import ForeignEntry, PointDamaged, RecordUnreadable, SignatureWrong, StillpointError
from service.model.lifecycle import PointState
from service.records import points, sealed_points
from service.records.sealed_points import Imported
from service.repository.signing import SignatureState
from service.repository.store import StoredPoint

MAX_REFUSED = 100
"""Folders that the result names. There may be more: `refused_count` counts all."""

DAMAGE = (ForeignEntry, PointDamaged, RecordUnreadable, SignatureWrong)
"""Errors that say something of the point itself. Other errors come from its storage, and prove nothing."""


@dataclass
class ImportResult:
    """`refused`: folders that are not put on record, each with the error. Damaged files are found by a verify, and not here."""

    counts: Counter[str] = field(default_factory=Counter)
    refused: list[dict[str, Any]] = field(default_factory=list)
    error: StillpointError | None = None
    present: set[str] = field(default_factory=set)

    def as_document(self) -> dict[str, Any]:
        return {
            "error": self.error.as_document() if self.error is not None else None,
            **{name: self.counts[name] for name in (*Imported, "missing", "unsigned")},
            "refused_count": len(self.refused),
            "refused": self.refused[:MAX_REFUSED],
        }


def put_on_record(session: Session, repository_id: str, stored: Iterable[StoredPoint], result: ImportResult, now: datetime) -> None:
    for point in stored:
        known = session.scalars(
            select(RecoveryPoint).where(RecoveryPoint.repository_id == repository_id, RecoveryPoint.folder == point.folder)
        ).first()
        error = why_refused(point, known.manifest_digest if known is not None else None)
        result.present |= {known.id} if known is not None else set()
        if error is None and point.manifest is not None and point.digest is not None:
            imported = sealed_points.import_point(session, point.manifest, point.digest, repository_id, now)
            result.counts[imported] += 1
            result.counts["unsigned"] += point.signature is SignatureState.missing
            result.present.add(point.manifest.point_id)
        elif error is not None:
            result.refused.append({"folder": point.folder, "code": error.code, "detail": error.detail})
            if known is not None and isinstance(error, DAMAGE):
                points.set_state(session, known.id, PointState.damaged, now=now, facts={"by": "import", "code": error.code})


def note_missing(session: Session, repository_id: str, result: ImportResult, now: datetime) -> None:
    """Call this after all points were put on record."""
    result.counts["missing"] += len(points.note_missing(session, repository_id, result.present, now=now))


def why_refused(point: StoredPoint, digest_on_record: str | None) -> StillpointError | None:
    """A point that was changed after it was sealed is not put on record as good. One without a signature is, and is counted."""
    if point.error is not None:
        return point.error
    if point.is_signed is False:
        return SignatureWrong(path=point.folder, reason=f"the signature by key {point.key_id} does not fit")
    if digest_on_record not in (None, point.digest):
        return SignatureWrong(path=point.folder, reason="the manifest is not the one on record, although its signature may be right")
    if point.manifest is not None and point.manifest.folder != point.folder:
        # Its backing files have relative names, so they would be looked for at another place.
        return PointDamaged(
            point=point.manifest.point_id, path=point.folder, reason=f"it belongs to {point.manifest.folder}", next_good=None
        )
    return None
