"""Proofs: statements about a point that were tested, each with its date. A point keeps the newest of each kind."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from service.clock import rfc3339
from service.model.repository import ProofKind

KEPT_OF_EACH_KIND = 10
"""Proofs. An older proof of the kind is dropped."""

CAN_PROVE_DAMAGE = (ProofKind.bytes, ProofKind.structure, ProofKind.signature)
"""Errors in a filesystem are the guest's own. A guest that does not boot, or an application that fails, may have been so before."""


DAMAGED_BELOW = "damaged_below"
"""The fact of a proof that says damage: the ids of the points whose files are to blame, where it was not a file of the point itself."""


@dataclass(frozen=True)
class Proof:
    """`ok` None: what was tested could not be told. `facts`: what the test saw."""

    kind: ProofKind
    ok: bool | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    job_id: str | None = None

    def as_document(self, at: datetime) -> dict[str, Any]:
        return {"kind": self.kind.value, "at": rfc3339(at), "ok": self.ok, "facts": dict(self.facts), "job_id": self.job_id}


def with_new(known: Sequence[Mapping[str, Any]] | None, new: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The proofs of a point, oldest first. What was judged last of a kind stays, however many could tell nothing since.

    So does what was judged last of the point's own files, however often other points were to blame since.
    """
    proofs = [dict(proof) for proof in [*(known or ()), *new]]
    return [proof for n, proof in enumerate(proofs) if _stays(proof, proofs[n + 1 :])]


def _stays(proof: Mapping[str, Any], later: Sequence[Mapping[str, Any]]) -> bool:
    of_kind = [other for other in later if other["kind"] == proof["kind"]]
    judged = [other for other in of_kind if other["ok"] is not None]
    is_last_word = proof["ok"] is not None and not any(_is_of_others(proof) or not _is_of_others(other) for other in judged)
    return is_last_word or len(of_kind) < KEPT_OF_EACH_KIND


def _is_of_others(proof: Mapping[str, Any]) -> bool:
    return DAMAGED_BELOW in proof["facts"]


def without_blame(proof: Mapping[str, Any], kind: ProofKind, good: Collection[str], facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same proof. If it says damage only because of points that are all among `good`, it says nothing any more. `facts`: why.

    What an earlier proof said of the point's own files counts again then.
    """
    is_refuted = proof["kind"] == kind and proof["ok"] is False and _is_of_others(proof) and set(proof["facts"][DAMAGED_BELOW]) <= set(good)
    return {**proof, "ok": None, "facts": {**proof["facts"], **facts}} if is_refuted else proof


def newest(proofs: Sequence[Mapping[str, Any]] | None, kind: ProofKind) -> Mapping[str, Any] | None:
    return next((proof for proof in reversed(proofs or ()) if proof["kind"] == kind), None)


def is_known_bad(proofs: Sequence[Mapping[str, Any]] | None) -> bool:
    """The newest proof of a kind that can prove damage says that the point is damaged. Neither a good proof of
    another kind refutes that, nor a proof that could tell nothing."""
    return bool(what_is_bad(proofs))


def what_is_bad(proofs: Sequence[Mapping[str, Any]] | None) -> set[ProofKind]:
    judged = [proof for proof in proofs or () if proof["ok"] is not None]
    return {kind for kind in CAN_PROVE_DAMAGE if (newest(judged, kind) or {"ok": True})["ok"] is False}
