"""Which read of the bytes still stands for a stored point, by the stamps of its files (`service.repository.stamps`). Callers commit.

A proof of bytes keeps the stamp of every folder that was read for it. Where the files still have that stamp, nothing was written since.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from service.db.tables import RecoveryPoint
from service.model import chains
from service.model.proofs import is_known_bad
from service.model.repository import ProofKind
from service.records import points

STAMPS = "stamps"
"""The fact of a proof of bytes: by the folder of a point, the stamp that it had when it was read."""


@dataclass(frozen=True)
class Standing:
    """The oldest of the proofs that a chain stands on. `job_id`: of the job that made it."""

    at: datetime
    job_id: str | None


def standing(session: Session, point: RecoveryPoint, seen: Mapping[str, str]) -> Standing | None:
    """`seen`: by folder, the stamps of the point and of all points below, as they are now. None: not each of them was read as it is now."""
    links = {link.id: link for link in points.links_of_domain(session, point.domain_id)}
    needed = chains.ancestors(point.id, links) | {point.id}
    known: dict[tuple[str, str], Standing] = {}
    for row in points.of_repository(session, str(point.repository_id)):
        if row.id in needed and is_known_bad(row.proofs):
            return None
        if row.domain_id == point.domain_id:
            for proof in _stamped(row.proofs):
                read = Standing(datetime.fromisoformat(proof["at"]), proof["job_id"])
                for place in proof["facts"][STAMPS].items():
                    known[place] = max(known.get(place, read), read, key=lambda each: each.at)
    proven = [known.get(place) for place in seen.items()]
    all_proven = [each for each in proven if each is not None]
    return min(all_proven, key=lambda each: each.at) if all_proven and len(all_proven) == len(proven) else None


def take_over(session: Session, repository_id: str, changed: Mapping[str, Sequence[str]]) -> None:
    """`changed`: by folder, the stamps before and after a change of ours that wrote nothing: QEMU was given or lost the right to read."""
    for row in points.of_repository(session, repository_id):
        if any(_renewed(proof, changed) != proof["facts"][STAMPS] for proof in _stamped(row.proofs)):
            points.change_proofs(session, row.id, lambda proof: _with_stamps(proof, changed))


def _stamped(proofs: Iterable[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    return [proof for proof in proofs or () if proof["kind"] == ProofKind.bytes and proof["ok"] and STAMPS in proof["facts"]]


def _renewed(proof: Mapping[str, Any], changed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    stamps: dict[str, str] = proof["facts"][STAMPS]
    return {folder: changed[folder][1] if folder in changed and changed[folder][0] == stamp else stamp for folder, stamp in stamps.items()}


def _with_stamps(proof: Mapping[str, Any], changed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    if not _stamped([proof]):
        return dict(proof)
    return {**proof, "facts": {**proof["facts"], STAMPS: _renewed(proof, changed)}}
