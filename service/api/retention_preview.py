"""The preview of retention: what would go now, and why each other point stays. Nothing is changed."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_json
from sqlalchemy import ColumnElement, and_, or_, select, true
from sqlalchemy.orm import Session

from service.api.schemas.retention import RetentionQuestion
from service.clock import rfc3339
from service.db.tables import RecoveryPoint
from service.errors import PolicyUnknown
from service.model.origin import POLICY_LABEL, TRACK_LABEL
from service.model.retention import Decision, Stays
from service.model.retention_rules import Rules
from service.model.retention_terms import Trial
from service.model.retention_words import sentence
from service.records import policies, repositories, retention
from service.records.retention import Judged


@dataclass(frozen=True)
class _Scope:
    """Which points are told. Each None: any."""

    policy: str | None
    track: str | None
    repository_id: str | None
    domain: str | None

    @classmethod
    def of(cls, session: Session, question: RetentionQuestion) -> "_Scope":
        """Raises PolicyUnknown, RepositoryUnknown."""
        repository_id = repositories.get(session, question.repository).id if question.repository is not None else None
        policy = _policy_name(session, question.policy) if question.policy is not None else None
        return cls(policy, question.track, repository_id, question.domain)

    @property
    def of_domains(self) -> ColumnElement[bool]:
        """All points of the domains that have a point in the scope."""
        wanted: list[ColumnElement[bool]] = []
        if self.policy is not None:
            wanted.append(RecoveryPoint.labels[POLICY_LABEL].as_string() == self.policy)
        if self.track is not None:
            wanted.append(RecoveryPoint.labels[TRACK_LABEL].as_string() == self.track)
        if self.repository_id is not None:
            wanted.append(RecoveryPoint.repository_id == self.repository_id)
        if self.domain is not None:
            wanted.append(or_(RecoveryPoint.domain_id == self.domain, RecoveryPoint.domain_name == self.domain))
        return RecoveryPoint.domain_id.in_(select(RecoveryPoint.domain_id).where(and_(*wanted))) if wanted else true()

    def has(self, judged: Judged) -> bool:
        policy = judged.origin.policy if judged.origin is not None else None
        track = judged.origin.track if judged.origin is not None else None
        return (
            (self.policy is None or self.policy == policy)
            and (self.track is None or self.track == track)
            and (self.repository_id is None or self.repository_id == judged.point.repository_id)
            and (self.domain is None or self.domain in (judged.point.domain_id, judged.point.domain_name))
        )


def preview_of(session: Session, question: RetentionQuestion, now: datetime) -> bytes:
    """As JSON. Raises PolicyUnknown, RepositoryUnknown, RetentionInvalid."""
    with _no_search_for_garbage():
        # There may be tens of thousands of points: this takes a tenth of the time of `json`.
        return to_json(_preview(session, question, now))


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """All objects of a large answer live until it is written. To look for garbage among them again and again takes a third of the time."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def _preview(session: Session, question: RetentionQuestion, now: datetime) -> dict[str, Any]:
    scope = _Scope.of(session, question)
    trial = None
    if question.rules is not None:
        trial = Trial(Rules.from_document(question.rules.model_dump()), scope.policy, scope.track)
    judged = [each for each in retention.judge(session, scope.of_domains, now, trial) if scope.has(each)]
    goes = [each for each in judged if not each.decision.stays]
    listed = {"all": judged, "goes": goes, "stays": [each for each in judged if each.decision.stays], "counts": []}[question.show]
    at = rfc3339(now)
    return {
        "at": at,
        "goes": len(goes),
        "stays": len(judged) - len(goes),
        "goes_bytes": sum(each.point.size_bytes or 0 for each in goes),
        "counts": _counts(judged),
        "points": list(_documents(listed, at)),
    }


def _policy_name(session: Session, id_or_name: str) -> str:
    """Also of a policy that was deleted, if it has left points. Raises PolicyUnknown."""
    try:
        return policies.get(session, id_or_name).name
    except PolicyUnknown:
        has_points = select(RecoveryPoint.id).where(RecoveryPoint.labels[POLICY_LABEL].as_string() == id_or_name).limit(1)
        if session.scalar(has_points) is None:
            raise
        return id_or_name


def _counts(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """What goes first, and then by the number of points."""
    by_reason: dict[tuple[str, str], list[int]] = {}
    for each in judged:
        count = by_reason.setdefault((_word(each.decision), each.decision.grounds[0].code.value), [0, 0])
        count[0] += 1
        count[1] += each.point.size_bytes or 0
    in_order = sorted(by_reason.items(), key=lambda item: (item[0][0], -item[1][0], item[0][1]))
    return [{"decision": decision, "code": code, "points": n, "size_bytes": size} for (decision, code), (n, size) in in_order]


def _word(decision: Decision) -> str:
    return "stays" if decision.stays else "goes"


def _documents(listed: Sequence[Judged], now: str) -> Iterator[dict[str, Any]]:
    domains: dict[tuple[str, str], dict[str, str]] = {}
    for each in listed:
        point, origin, decision = each.point, each.origin, each.decision
        named = (point.domain_id, point.domain_name)
        yield {
            "id": point.id,
            "domain": domains.setdefault(named, {"id": point.domain_id, "name": point.domain_name}),
            "repository": point.repository_id,
            "point_in_time_at": rfc3339(point.point_in_time_at),
            "size_bytes": point.size_bytes,
            "policy": origin.policy if origin is not None else None,
            "track": origin.track if origin is not None else None,
            "decision": _word(decision),
            "may_go_at": _may_go_at(point.point_in_time_at, decision) if decision.stays else now,
            "reasons": [{"code": ground.code.value, "facts": ground.facts, "text": sentence(ground)} for ground in decision.grounds],
        }


def _may_go_at(taken_at: datetime, decision: Decision) -> str | None:
    """Only the age of a point passes by itself."""
    (first, *others) = decision.grounds
    if others or first.code is not Stays.young:
        return None
    return rfc3339(taken_at + timedelta(seconds=first.facts["minimum_age_s"]))
