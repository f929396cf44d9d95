"""The preview of retention: what would go now, and why each other point stays. Nothing is changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import ColumnElement, and_, or_, select, true
from sqlalchemy.orm import Session

from service.api.schemas.retention import RetentionQuestion
from service.clock import rfc3339
from service.db.tables import RecoveryPoint
from service.errors import PolicyUnknown
from service.garbage import uncollected
from service.model.origin import POLICY_LABEL, TRACK_LABEL, Origin
from service.model.retention import Decision, Goes, Ground, Stays
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
    with uncollected():
        return _preview(session, question, now)


def _preview(session: Session, question: RetentionQuestion, now: datetime) -> bytes:
    scope = _Scope.of(session, question)
    trial = None
    if question.rules is not None:
        trial = Trial(Rules.from_document(question.rules.model_dump()), scope.policy, scope.track)
    judged = [each for each in retention.judge(session, scope.of_domains, now, trial) if scope.has(each)]
    goes = [each for each in judged if not each.decision.stays]
    listed = {"all": judged, "goes": goes, "stays": [each for each in judged if each.decision.stays], "counts": []}[question.show]
    at = rfc3339(now)
    head = {
        "at": at,
        "goes": len(goes),
        "stays": len(judged) - len(goes),
        "goes_bytes": sum(each.point.size_bytes or 0 for each in goes),
        "counts": _counts(judged),
    }
    return f'{_json(head)[:-1]},"points":[{",".join(_texts(listed, at))}]}}'.encode()


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
    by_reason: dict[tuple[bool, Stays | Goes], list[int]] = {}
    for each in judged:
        decision = each.decision
        count = by_reason.setdefault((decision.stays, decision.grounds[0].code), [0, 0])
        count[0] += 1
        count[1] += each.point.size_bytes or 0
    in_order = sorted(by_reason.items(), key=lambda item: (item[0][0], -item[1][0], item[0][1].value))
    return [{"decision": _word(stays), "code": code.value, "points": n, "size_bytes": size} for (stays, code), (n, size) in in_order]


def _word(stays: bool) -> str:
    return "stays" if stays else "goes"


# --- each point as text ---------------------------------------------------------------------------


def _json(value: Any) -> str:
    """Ten times as fast as `json`."""
    return to_json(value).decode()


def _texts(listed: Sequence[Judged], now: str) -> Iterator[str]:
    """There may be tens of thousands of points. Most of what is said of one is said of others, too, and is written once."""
    text_of, now_text, pieces = lru_cache(maxsize=None)(_json), _json(now), _Pieces()
    for each in listed:
        point, decision = each.point, each.decision
        may_go_at = now_text if not decision.stays else _may_go_at(point.point_in_time_at, decision)
        reasons = ",".join([pieces.of_ground(ground) for ground in decision.grounds])
        yield (
            f'{{"id":{_json(point.id)},"domain":{pieces.of_domain(point.domain_id, point.domain_name)}'
            f',"repository":{text_of(point.repository_id)},"point_in_time_at":"{rfc3339(point.point_in_time_at)}"'
            f',"size_bytes":{_json(point.size_bytes)},{pieces.of_origin(each.origin)}'
            f',"decision":"{_word(decision.stays)}","may_go_at":{may_go_at},"reasons":[{reasons}]}}'
        )


class _Pieces:
    """What one answer says again and again, as text. For one answer: it ends with it."""

    def __init__(self) -> None:
        self._domains: dict[tuple[str, str], str] = {}
        self._origins: dict[Origin | None, str] = {}
        self._rules: dict[tuple[Any, ...], str] = {}

    def of_domain(self, domain_id: str, name: str) -> str:
        known = self._domains.get((domain_id, name))
        return known or self._domains.setdefault((domain_id, name), _json({"id": domain_id, "name": name}))

    def of_origin(self, origin: Origin | None) -> str:
        known = self._origins.get(origin)
        if known is None:
            document = {"policy": origin.policy, "track": origin.track} if origin is not None else {"policy": None, "track": None}
            known = self._origins[origin] = _json(document)[1:-1]
        return known

    def of_ground(self, ground: Ground) -> str:
        if ground.code not in _REPEATED_CODES:
            return _ground(ground)
        key = (ground.code, *ground.facts.values())
        known = self._rules.get(key)
        return known or self._rules.setdefault(key, _ground(ground))


_REPEATED_CODES = frozenset(Stays) - {Stays.needed_by, Stays.in_use} | {Goes.damaged, Goes.needs_damaged, Goes.too_old, Goes.leaving}
"""Codes whose facts do not name other points."""


def _ground(ground: Ground) -> str:
    return _json({"code": ground.code.value, "facts": ground.facts, "text": sentence(ground)})


def _may_go_at(taken_at: datetime, decision: Decision) -> str:
    """As JSON. Only the age of a point passes by itself."""
    (first, *others) = decision.grounds
    if others or first.code is not Stays.young:
        return "null"
    return _json(rfc3339(taken_at + timedelta(seconds=first.facts["minimum_age_s"])))
