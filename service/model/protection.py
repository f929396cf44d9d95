"""Whether a domain is protected as promised, until when, and the one reason why not: a pure function of records."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from service.clock import rfc3339
from service.model.protection_facts import DomainFacts, Known, PointFacts, PolicyFacts, Promise, TieFacts
from service.model.protection_reasons import Reason, first_cause
from service.model.protection_view import OVERDUE, Part, View, look, view_of


class ProtectionState(StrEnum):
    protected = "protected"
    waiting = "waiting"
    """The promise is new: the first point that keeps it is still to come."""
    at_risk = "at_risk"
    """The promise holds, and the last run failed, or the promise breaks before the next run can mend that."""
    broken = "broken"
    paused = "paused"
    """The policy is paused."""
    tie = "tie"
    """Two policies select the domain equally well, so none of them has it."""
    unprotected = "unprotected"
    """No policy selects the domain."""


URGENCY = (
    ProtectionState.broken,
    ProtectionState.tie,
    ProtectionState.at_risk,
    ProtectionState.unprotected,
    ProtectionState.paused,
    ProtectionState.waiting,
    ProtectionState.protected,
)
"""The states, the most urgent first."""


@dataclass(slots=True)
class PromisedProofFacts:
    """`proven_at`: when a point that is good enough last had the proof. `too_old_at`: when the newest proof is or was too old."""

    kind: str
    max_age_s: float
    proven_at: datetime | None
    too_old_at: datetime

    def as_document(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "max_age_s": self.max_age_s,
            "proven_at": rfc3339(self.proven_at) if self.proven_at is not None else None,
            "too_old_at": rfc3339(self.too_old_at),
        }


@dataclass(slots=True)
class Protection:
    domain: DomainFacts
    state: ProtectionState
    policy: str | None
    #: The newest point with the promised verdict, and with a proof that is recent enough, if one is promised.
    newest_kept: PointFacts | None
    #: The newest good point at all.
    newest_good: PointFacts | None
    #: When the promise was broken, or will be broken if nothing happens. None: nothing is promised that ages.
    broken_at: datetime | None
    #: What is broken. None: nothing is.
    broken_part: Part | None
    #: None: protected.
    reason: Reason | None
    #: None: no proof is promised.
    proof: PromisedProofFacts | None = None
    #: When the next run for the domain begins. It is in the past while nobody begins it. None: none is to come.
    next_run_at: datetime | None = None

    def as_document(self) -> dict[str, Any]:
        return {
            "domain": {"id": self.domain.id, "name": self.domain.name},
            "host": self.domain.host.id,
            "state": self.state.value,
            "policy": self.policy,
            "newest_kept": _point_document(self.newest_kept),
            "newest_good": _point_document(self.newest_good),
            "broken_at": rfc3339(self.broken_at) if self.broken_at is not None else None,
            "next_run_at": rfc3339(self.next_run_at) if self.next_run_at is not None else None,
            "broken_part": self.broken_part.value if self.broken_part is not None else None,
            "reason": self.reason.as_document() if self.reason is not None else None,
            "proof": self.proof.as_document() if self.proof is not None else None,
        }


def protection(known: Known, now: datetime) -> Protection:
    policy = known.policy
    if not isinstance(policy, PolicyFacts):
        return _without_policy(known, policy, now)
    view = view_of(known, policy, now)
    if policy.is_paused:
        return _answer(view, ProtectionState.paused, Reason("policy_paused", _PAUSED, _UNPAUSE, {"policy": policy.name}, now))
    part = _broken_part(view)
    if part is not None:
        return _answer(view, ProtectionState.broken, first_cause(view, part, or_endangers=False), part)
    late_part = _part_of_points(view) if view.is_late_for_points() else None
    danger = first_cause(view, late_part, or_endangers=True)
    if danger is not None:
        return _answer(view, ProtectionState.at_risk, danger)
    if _is_first_to_come(view):
        facts = {"policy": policy.name, "next_run_at": view.next_point_start() or now}
        return _answer(view, ProtectionState.waiting, Reason("first_point_to_come", _FIRST, _WAIT, facts, now))
    return _answer(view, ProtectionState.protected, None)


_PAUSED = "Policy {policy} is paused, so nothing is taken by itself."
_UNPAUSE = "Set `paused: false` in the policy."
_FIRST = "The first run of policy {policy} for the domain is still to come: {next_run_at:coming}."
_WAIT = "Wait for the run, or take a point now: POST /api/v1/jobs."
_NOT_ASKED = "Nobody asked to protect the domain: no policy selects it."
_ASK = "Let a policy select the domain by its name, its labels or its host, or make a policy for `all_the_rest`."
_TIE = "The policies {policies} select the domain equally well, so it has none of them."
_DECIDE = "Let one of the policies name the domain more exactly, for example by its full name."


def _without_policy(known: Known, tie: TieFacts | None, now: datetime) -> Protection:
    domain, good = known.domain, look(known.points, Promise(), now).good
    if tie is None:
        state, reason = ProtectionState.unprotected, Reason("not_asked_for", _NOT_ASKED, _ASK, {}, now)
    else:
        state, reason = ProtectionState.tie, Reason("policy_tie", _TIE, _DECIDE, {"policies": " and ".join(tie.names)}, now)
    return Protection(domain, state, None, None, good, None, None, reason)


def _broken_part(view: View) -> Part | None:
    """Points that do not come are worse than proofs that do not come, so they are named first."""
    points_until, proof_until = view.points_until, view.proof_until
    if (points_until is not None and points_until <= view.now) or _was_never_kept(view):
        return _part_of_points(view)
    return Part.proof if proof_until is not None and proof_until <= view.now else None


def _was_never_kept(view: View) -> bool:
    """No age is promised, the first run is over, and there is still no point that is good enough."""
    if view.promise.rpo_s is not None or view.seen.sufficient is not None or view.running_job() is not None:
        return False
    start = view.next_point_start()
    return bool(view.known.runs) or start is None or start + OVERDUE <= view.now


def _part_of_points(view: View) -> Part:
    """`verdict` where a good point is recent enough, and falls short only of the verdict."""
    good, rpo_s = view.seen.good, view.promise.rpo_s
    if good is None or good is view.seen.sufficient:
        return Part.rpo
    return Part.verdict if rpo_s is None or good.at + timedelta(seconds=rpo_s) > view.now else Part.rpo


def _is_first_to_come(view: View) -> bool:
    """The promise holds only because it is new."""
    sufficient, rpo_s = view.seen.sufficient, view.promise.rpo_s
    if sufficient is None:
        return True
    return rpo_s is not None and sufficient.at + timedelta(seconds=rpo_s) <= view.now


def _broken_at(view: View) -> datetime | None:
    if _was_never_kept(view):
        return min(view.known.covered_since, view.now)
    return min((until for until in (view.points_until, view.proof_until) if until is not None), default=None)


def _answer(view: View, state: ProtectionState, reason: Reason | None, part: Part | None = None) -> Protection:
    domain, seen = view.known.domain, view.seen
    next_run_at = view.known.next_fire_at if state is not ProtectionState.paused else None
    broken_at, proof = _broken_at(view), _proof(view)
    return Protection(domain, state, view.policy.name, seen.kept, seen.good, broken_at, part, reason, proof, next_run_at)


def _proof(view: View) -> PromisedProofFacts | None:
    promised = view.promise.proof
    if promised is None or view.proof_until is None:
        return None
    return PromisedProofFacts(promised.kind.value, promised.max_age_s, view.seen.proven_at, view.proof_until)


def _point_document(point: PointFacts | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {"id": point.id, "point_in_time_at": rfc3339(point.at), "verdict": point.verdict.value, "repository_id": point.repository_id}
