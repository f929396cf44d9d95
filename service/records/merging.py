"""Merging points of a repository: which points take over the clusters of others, and the moment at which one gets its new files.

A job that begins to read a point and a merge that replaces its files take turns (`removal.turn_of`). The new digest is on record before
any file is replaced. So whatever dies, the manifest that is in the repository is one that is known. Callers commit.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import exists, or_, select, update
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.tables import CopiedPoint, Job, RecoveryPoint
from service.errors import PointDamaged, PointInUse, PointLeaving, PointPinned
from service.model import chains
from service.model.kinds import MERGES_POINTS
from service.model.lifecycle import FINAL_STATES, JobState, PointState
from service.model.manifest import Manifest
from service.model.repository import ProofKind
from service.records import points, removal, sealed_points, stamps
from service.records.removal import EventPosition, Neighbours

_POINTS = table_of(RecoveryPoint)
_UNFINISHED = tuple(state.value for state in JobState if state not in FINAL_STATES)


def heirs(session: Session, repository_id: str, going: Collection[str]) -> list[RecoveryPoint]:
    """The points that stand directly on one of these, and are not among these: each takes over what it needs. Oldest first."""
    standing = [point for point in points.of_repository(session, repository_id) if point.id not in going]
    return [point for point in standing if set(point.parents or ()) & set(going)]


def must_be_possible(session: Session, repository_id: str, going: Sequence[RecoveryPoint], *, remove: bool) -> None:
    """Raises PointPinned, PointLeaving, PointDamaged: of a point that is damaged nothing is merged, and nothing is merged into it."""
    for point in going:
        if remove and point.pinned:
            raise PointPinned(point=point.id)
    for heir in heirs(session, repository_id, {point.id for point in going}):
        must_be_whole(session, heir)
        links = {link.id: link for link in points.links_of_domain(session, heir.domain_id)}
        if any(not links[each].is_good for each in chains.ancestors(heir.id, links) if each in links):
            raise _damaged(session, heir)


def must_be_whole(session: Session, point: RecoveryPoint) -> None:
    """Raises PointLeaving, PointDamaged."""
    if point.state == PointState.leaving:
        raise PointLeaving(point=point.id)
    if point.state != PointState.sealed:
        raise _damaged(session, point)


def _damaged(session: Session, point: RecoveryPoint) -> PointDamaged:
    reason = f"it is {point.state}, or a point that it needs is not good, so nothing can be merged into it"
    return PointDamaged(point=point.id, path=point.folder, reason=reason, next_good=points.next_good(session, point))


# --- the moment -----------------------------------------------------------------------------------


def begin_to_replace(session: Session, point_id: str, next_digest: str) -> None:
    """From now on no job begins to read the point or what stands on it, until the merge has ended.

    Raises PointInUse: a job that has begun reads it, or a domain has its files below its disks. Raises PointLeaving, PointDamaged.
    """
    point = points.get(session, point_id)
    removal.turn_of(session, str(point.repository_id))
    point = points.get(session, point_id)
    must_be_whole(session, point)
    neighbours = Neighbours.of(session, str(point.repository_id), {point.domain_id}, only_begun=True)
    jobs, domains = sorted(neighbours.used_by.get(point_id, ())), sorted(neighbours.read_by.get(point_id, ()))
    if jobs or domains:
        raise PointInUse(point=point_id, jobs=jobs, domains=domains)
    session.execute(update(_POINTS).where(_POINTS.c.id == point_id).values(next_manifest_digest=next_digest))


def replaced(session: Session, manifest: Manifest, digest: str, changed: Mapping[str, Sequence[str]] | None = None) -> None:
    """The point has its new files. `changed`: by folder, its stamp before and now.

    A proof of what the guest sees stays true. So does a proof of the stored bytes: the new files were read back before they took their
    place. The signature is another one.
    """
    row = sealed_points.row_of(manifest, digest)
    proofs = [proof for proof in points.get(session, manifest.point_id).proofs or () if proof["kind"] != ProofKind.signature]
    points.change(
        session,
        manifest.point_id,
        disks=row.disks,
        size_bytes=row.size_bytes,
        manifest_digest=digest,
        next_manifest_digest=None,
        parents=row.parents,
        is_encrypted=row.is_encrypted,
    )
    points.set_proofs(session, manifest.point_id, proofs)
    if changed:
        stamps.take_over(session, str(points.get(session, manifest.point_id).repository_id), changed)


def being_replaced(session: Session, repository_id: str, domain_id: str, read: Iterable[str] | None = None) -> list[str]:
    """The points whose files a merge replaces just now: among `read` and all that those need, or all of the domain.

    The caller begins to read them in this transaction, if there are none.
    """
    removal.turn_of(session, repository_id)
    rows = session.execute(
        select(_POINTS.c.id, _POINTS.c.parents, _POINTS.c.next_manifest_digest).where(
            _POINTS.c.repository_id == repository_id, _POINTS.c.domain_id == domain_id
        )
    ).all()
    marked = {row.id for row in rows if row.next_manifest_digest is not None}
    if not marked or not _is_merging(session, repository_id):
        return []
    parents = {row.id: tuple(row.parents or ()) for row in rows}
    return sorted(marked if read is None else marked & {each for one in read for each in chains.with_all_below(one, parents)})


def _is_merging(session: Session, repository_id: str) -> bool:
    """Whether a merge there has begun and not ended. One that has ended leaves what it has done to those who read next."""
    has_begun = or_(Job.state != JobState.queued.value, Job.attempt > 0)
    wanted = exists().where(Job.repository_id == repository_id, Job.kind == MERGES_POINTS, Job.state.in_(_UNFINISHED), has_begun)
    return bool(session.scalar(select(wanted)))


def settled(session: Session, point_id: str, seen: Manifest, digest: str) -> bool:
    """Whether the manifest that is in the repository is one on record. If a merge died for good after it had put new files in place, and
    before that was on record, it is put on record here. So is the older form of a point that was merged, if the point was missing and
    came back from a copy that got the point before the merge.
    """
    point = points.get(session, point_id)
    if point.manifest_digest in (None, digest):
        return True
    if point.next_manifest_digest != digest and not _came_back(session, point, digest):
        return False
    replaced(session, seen, digest)
    return True


def _came_back(session: Session, point: RecoveryPoint, digest: str) -> bool:
    sent = exists().where(CopiedPoint.point_id == point.id, CopiedPoint.manifest_digest == digest, CopiedPoint.sent_at.is_not(None))
    return point.state == PointState.missing and bool(session.scalar(select(sent)))


def merged_since(session: Session, repository_id: str, position: EventPosition) -> set[str]:
    """The points that got new files after the position, or get them now: what was read before does not say what is there."""
    is_late = or_(Job.state.in_(_UNFINISHED), Job.finished_at >= position.at)
    rows = session.execute(
        select(Job.state, Job.result).where(Job.repository_id == repository_id, Job.kind == MERGES_POINTS, is_late)
    ).all()
    done = {merged["id"] for row in rows for merged in ((row.result or {}).get("merge") or {}).get("merged") or ()}
    marked = select(_POINTS.c.id).where(_POINTS.c.repository_id == repository_id, _POINTS.c.next_manifest_digest.is_not(None))
    return done | (set(session.scalars(marked)) if any(row.state in _UNFINISHED for row in rows) else set())


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """What the job shows of a point that took over others."""
    last = manifest.merges[-1]
    return {"id": manifest.point_id, "folder": manifest.folder, "points": list(last["points"])}
