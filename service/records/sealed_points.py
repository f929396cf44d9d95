"""The row of a point whose manifest is sealed: after a backup, and when a repository is imported. Callers commit."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy.orm import Session

from service.db.tables import Job, RecoveryPoint
from service.model.kinds import SEALS_POINT
from service.model.lifecycle import PointState
from service.model.manifest import Manifest
from service.model.proofs import is_known_bad
from service.model.windows.domain_controller import is_domain_controller
from service.records import points


class Imported(StrEnum):
    added = "added"
    known = "known"
    returned = "returned"
    """It was missing."""
    elsewhere = "elsewhere"
    """The point is on record, in another repository. Nothing was changed."""


def row_of(manifest: Manifest, manifest_digest: str, *, job_id: str | None = None) -> RecoveryPoint:
    """`manifest_digest`: SHA-256 in hex of the canonical manifest. `job_id` None: the job is not on record."""
    stored = {file.name: file.bytes for file in manifest.files}
    return RecoveryPoint(
        id=manifest.point_id,
        job_id=job_id,
        kind=SEALS_POINT,
        domain_id=manifest.domain_id,
        domain_name=manifest.domain_name,
        host_id=manifest.host_id,
        created_at=datetime.fromisoformat(manifest.sealed_at),
        point_in_time_at=datetime.fromisoformat(manifest.point_in_time_at),
        verdict=manifest.verdict,
        labels=dict(manifest.labels),
        disks=[{**disk, "stored_bytes": stored.get(disk["file"])} for disk in manifest.as_document()["disks"]],
        size_bytes=sum(file.bytes for file in manifest.files),
        repository_id=manifest.repository_id,
        folder=manifest.folder,
        manifest_digest=manifest_digest,
        parents=list(manifest.parents),
        pinned=manifest.pinned,
        is_encrypted=any(disk.is_encrypted for disk in manifest.disks),
        left_out=manifest.as_document()["left_out"],
        proofs=[],
        is_domain_controller=is_domain_controller(manifest.vss),
    )


def import_point(session: Session, manifest: Manifest, manifest_digest: str, repository_id: str, now: datetime) -> Imported:
    """Put a point that was found in a repository on record. A damaged point stays so until a verify has read it."""
    known = session.get(RecoveryPoint, manifest.point_id, populate_existing=True)
    if known is None:
        job_id = manifest.job_id if session.get(Job, manifest.job_id) is not None else None
        point = row_of(manifest, manifest_digest, job_id=job_id)
        point.repository_id = repository_id
        points.insert_point(session, point, now=now, facts={"verdict": point.verdict, "imported": True})
        return Imported.added
    if known.repository_id != repository_id:
        return Imported.elsewhere
    if known.state != PointState.missing:
        return Imported.known
    # Its files are back. They may still be those that a verify found damaged.
    state = PointState.damaged if is_known_bad(known.proofs) else PointState.sealed
    points.set_state(session, known.id, state, now=now, facts={"imported": True})
    return Imported.returned
