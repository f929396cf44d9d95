"""Proofs: statements about a point that were tested, each with its date. A point keeps the newest of each kind."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from service.clock import rfc3339
from service.model.repository import ProofKind

KEPT_OF_EACH_KIND = 10
"""Proofs. An older proof of the kind is dropped."""

CAN_PROVE_DAMAGE = (ProofKind.bytes, ProofKind.structure, ProofKind.signature)
"""Errors in a filesystem are the guest's own. A guest that does not boot, or an application that fails, may have been so before."""


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
    """The proofs of a point, oldest first. What was judged last of a kind stays, however many could tell nothing since."""
    proofs = [dict(proof) for proof in [*(known or ()), *new]]
    kept: list[dict[str, Any]] = []
    for n, proof in enumerate(proofs):
        later = sum(other["kind"] == proof["kind"] for other in proofs[n + 1 :])
        is_last_word = proof["ok"] is not None and not any(
            other["kind"] == proof["kind"] and other["ok"] is not None for other in proofs[n + 1 :]
        )
        if later < KEPT_OF_EACH_KIND or is_last_word:
            kept.append(proof)
    return kept


def newest(proofs: Sequence[Mapping[str, Any]] | None, kind: ProofKind) -> Mapping[str, Any] | None:
    return next((proof for proof in reversed(proofs or ()) if proof["kind"] == kind), None)


def is_known_bad(proofs: Sequence[Mapping[str, Any]] | None) -> bool:
    """The newest proof of a kind that can prove damage says that the point is damaged. Neither a good proof of
    another kind refutes that, nor a proof that could tell nothing."""
    return bool(what_is_bad(proofs))


def what_is_bad(proofs: Sequence[Mapping[str, Any]] | None) -> set[ProofKind]:
    judged = [proof for proof in proofs or () if proof["ok"] is not None]
    return {kind for kind in CAN_PROVE_DAMAGE if (newest(judged, kind) or {"ok": True})["ok"] is False}
