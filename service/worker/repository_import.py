"""Puts the points that lie in a repository on record. Nothing in the repository is changed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import RecoveryPoint
from service.errors import ForeignEntry, PointDamaged, PointUnsigned, RecordUnreadable, SignatureWrong, StillpointError
from service.model import chains
from service.model.lifecycle import PointState
from service.model.proofs import DAMAGED_BELOW, Proof, newest, what_is_bad
from service.model.repository import ProofKind
from service.records import damage, merging, points, removal, sealed_points
from service.records.removal import EventPosition
from service.records.sealed_points import Imported
from service.repository.catalog import CataloguedPoint
from service.repository.signing import SignatureState
from service.repository.store import Repository, StoredPoint

MAX_NAMED = 100
"""Folders and points that the result names. There may be more: the counts are those of all."""
DAMAGE = (ForeignEntry, PointDamaged, RecordUnreadable, SignatureWrong)
"""Errors that say something of the point itself. Other errors come from its storage, and prove nothing."""


@dataclass
class ImportResult:
    """`refused`: folders that are not put on record, each with the error. `incomplete`: points on record that need a point which is not
    there. Damaged files are found by a verify, and not here."""

    counts: Counter[str] = field(default_factory=Counter)
    refused: list[dict[str, Any]] = field(default_factory=list)
    incomplete: list[dict[str, Any]] = field(default_factory=list)
    error: StillpointError | None = None
    present: set[str] = field(default_factory=set)
    #: When the list of the folders was begun.
    begun: EventPosition | None = None

    def as_document(self) -> dict[str, Any]:
        return {
            "error": self.error.as_document() if self.error is not None else None,
            **{name: self.counts[name] for name in (*Imported, "missing", "unsigned")},
            "refused_count": len(self.refused),
            "refused": self.refused[:MAX_NAMED],
            "incomplete_count": len(self.incomplete),
            "incomplete": self.incomplete[:MAX_NAMED],
        }

    def refuse(self, point: StoredPoint, error: StillpointError) -> None:
        self.refused.append({"folder": point.folder, "code": error.code, "detail": error.detail})


def listed_twice(repository: Repository) -> list[StoredPoint]:
    """A point counts as missing or unreadable only if it is so in both lists: the repository may be away for a moment.

    Raises RepositoryGone and its like, also if the repository was mounted again between the lists.
    """
    before = repository.look()
    first, second = ({point.folder: point for point in repository.points()} for _ in range(2))
    repository.must_have_stayed(before)
    readable = {folder: point for folder, point in first.items() if point.error is None}
    return list({**first, **second, **readable}.values())


def put_on_record(session: Session, repository_id: str, catalogued: Iterable[CataloguedPoint], result: ImportResult, now: datetime) -> None:
    """Parents first, as the catalog has them."""
    removed = removal.removed_since(session, result.begun) if result.begun is not None else set()
    merged = merging.merged_since(session, repository_id, result.begun) if result.begun is not None else set()
    for point in catalogued:
        known = _on_record(session, repository_id, point.stored, result)
        digest = point.stored.digest or ""
        if known is not None and known.id not in merged and not merging.settled(session, known.id, point.manifest, digest):
            error = _another_manifest(point.stored)
            result.refuse(point.stored, error)
            _note_damage(session, known, error, now)
            continue
        if known is None and point.manifest.point_id in removed:
            continue
        imported = sealed_points.import_point(session, point.manifest, digest, repository_id, now)
        result.counts[imported] += 1
        result.counts["unsigned"] += point.stored.signature is SignatureState.missing
        result.present.add(point.manifest.point_id)
        if imported is Imported.added:
            points.add_proofs(session, point.manifest.point_id, [_of_signature(point.stored)], now)
        if point.missing:
            result.incomplete.append({"point": point.manifest.point_id, "missing": sorted(point.missing)})


def judge_signatures(session: Session, repository_id: str, catalogued: Iterable[CataloguedPoint], now: datetime) -> None:
    """An unsigned point that was not on record may be made by anybody: neither the point nor what stands on it is good.

    A point that was on record before needs no signature, as the record has the digest of its manifest.
    """
    listed = {point.manifest.point_id: point.stored for point in catalogued}
    on_record = points.of_repository(session, repository_id)
    imported = [point for point in on_record if point.id in listed and newest(point.proofs, ProofKind.signature)]
    unsigned = {point.id for point in imported if listed[point.id].signature is SignatureState.missing}
    parents = {point.id: tuple(point.parents or ()) for point in on_record}
    for point in imported:
        blamed = unsigned & chains.with_all_below(point.id, parents)
        is_bad = ProofKind.signature in what_is_bad(point.proofs)
        if blamed and not is_bad:
            facts: dict[str, Any] = {"state": listed[point.id].signature.value, "signed_by": listed[point.id].key_id}
            facts |= {DAMAGED_BELOW: sorted(blamed)} if point.id not in blamed else {}
            points.add_proofs(session, point.id, [Proof(ProofKind.signature, ok=False, facts=facts)], now)
        if blamed and point.state == PointState.sealed:
            points.set_state(session, point.id, PointState.damaged, now=now, facts={"by": "import", "code": PointUnsigned.code})
        if is_bad and not blamed:
            damage.take_back(session, point, _of_signature(listed[point.id]), begun=now, now=now, facts={"by": "import"})


def refuse(session: Session, repository_id: str, unusable: Iterable[StoredPoint], result: ImportResult, now: datetime) -> None:
    for point in unusable:
        error = _why_unusable(point)
        result.refuse(point, error)
        _note_damage(session, _on_record(session, repository_id, point, result), error, now)


def note_missing(session: Session, repository_id: str, result: ImportResult, now: datetime) -> None:
    """Call this after the others: the points on record that were not seen."""
    result.counts["missing"] += len(points.note_missing(session, repository_id, result.present, now=now))


def _of_signature(stored: StoredPoint) -> Proof:
    """Whether a key has signed exactly this manifest. `state` says whether that key is one that is known here."""
    is_signed = stored.signature in (SignatureState.good, SignatureState.unknown_key)
    return Proof(ProofKind.signature, ok=is_signed, facts={"state": stored.signature.value, "signed_by": stored.key_id})


def _on_record(session: Session, repository_id: str, point: StoredPoint, result: ImportResult) -> RecoveryPoint | None:
    """The row of this folder. Its point is not missing, whatever is wrong with its manifest."""
    here = select(RecoveryPoint).where(RecoveryPoint.repository_id == repository_id, RecoveryPoint.folder == point.folder)
    known = session.scalars(here).first()
    if known is not None:
        result.present.add(known.id)
    return known


def _note_damage(session: Session, known: RecoveryPoint | None, error: StillpointError, now: datetime) -> None:
    if known is not None and isinstance(error, DAMAGE):
        proof = Proof(ProofKind.bytes, ok=False, facts={"reason": error.detail, "by": "import"})
        damage.put_on_record(session, known, [known.id], proof, now=now, facts={"by": "import", "code": error.code})


def _another_manifest(point: StoredPoint) -> StillpointError:
    return SignatureWrong(path=point.folder, reason="the manifest is not the one on record, although its signature may be right")


def _why_unusable(point: StoredPoint) -> StillpointError:
    """As `service.repository.catalog` decides."""
    if point.error is not None:
        return point.error
    if point.is_signed is False or point.manifest is None:
        return SignatureWrong(path=point.folder, reason=f"the signature by key {point.key_id} does not fit")
    reason = f"it is the point {point.manifest.point_id} of the folder {point.manifest.folder}"
    return PointDamaged(point=point.manifest.point_id, path=point.folder, reason=reason, next_good=None)
