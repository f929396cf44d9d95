"""Which policy has each domain, and what it promises. What was read of a document of a policy stays in memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from service import log
from service.db.tables import Policy
from service.errors import PolicyInvalid
from service.model.backup_policy import BackupPolicy
from service.model.protection_facts import PolicyFacts, TieFacts
from service.model.protection_plan import plan_of
from service.model.selectors import Domain, Selected, Tie, policy_of
from service.records import policies

_logger = log.get(__name__)


class PolicyOfDomain(NamedTuple):
    """`id` None: no policy, or a tie."""

    id: str | None
    facts: PolicyFacts | TieFacts | None
    updated_at: datetime | None = None


NOBODY = PolicyOfDomain(None, None)


@dataclass(frozen=True)
class Policies:
    """`by_name`: each policy with what protection needs of it."""

    by_name: Mapping[str, PolicyOfDomain]
    selection: "Selection"
    labels: Mapping[str, Mapping[str, str]]

    def of(self, domain_id: str, name: str, host: str) -> PolicyOfDomain:
        labels = self.labels.get(domain_id)
        selected = self.selection.of(name, host, tuple(sorted(labels.items())) if labels else ())
        if isinstance(selected, Tie):
            return PolicyOfDomain(None, TieFacts(selected.policies))
        return self.by_name[selected.policy] if selected is not None else NOBODY

    @property
    def unlimited(self) -> list[str]:
        """The ids of the policies that promise nothing of the age of points."""
        each = self.by_name.values()
        return [one.id for one in each if one.id is not None and isinstance(one.facts, PolicyFacts) and one.facts.promise.rpo_s is None]

    @property
    def tracks_without_points(self) -> list[tuple[str, str]]:
        """The id of the policy, and the name of the track."""
        return [
            (policy.id, track.name)
            for policy in self.by_name.values()
            if policy.id is not None and isinstance(policy.facts, PolicyFacts)
            for track in policy.facts.tracks
            if not track.makes_point
        ]


MAX_READ = 4_096
"""Documents of policies that stay in memory as they were read."""


class Selection:
    """Which policy has a domain of this name, host and labels. The answers are kept, as they only change with the policies."""

    def __init__(self, policies: tuple[BackupPolicy, ...]) -> None:
        self._policies = policies
        self._known: dict[tuple[str, str, tuple[tuple[str, str], ...]], Selected | Tie | None] = {}

    def of(self, name: str, host: str, labels: tuple[tuple[str, str], ...]) -> Selected | Tie | None:
        key = (name, host, labels)
        if key not in self._known:
            if len(self._known) > MAX_KEPT:
                self._known.clear()
            self._known[key] = policy_of(Domain("", name, host, dict(labels)), self._policies)
        return self._known[key]


MAX_KEPT = 100_000
"""Answers of a selection that stay in memory. Then it begins again with none."""


def read(session: Session, repository_ids: Mapping[str, str], now: datetime) -> Policies:
    columns = (Policy.id, Policy.name, Policy.updated_at, cast(Policy.document, Text).label("text"))
    rows = session.execute(select(*columns).order_by(Policy.name)).all()
    by_name = {
        row.name: PolicyOfDomain(row.id, plan_of(policy, repository_ids, now), row.updated_at)
        for row in rows
        if (policy := _policy(row.text)) is not None
    }
    return Policies(by_name, _selection(tuple(row.text for row in rows)), policies.all_labels(session))


@lru_cache(maxsize=MAX_READ)
def _policy(text: str) -> BackupPolicy | None:
    """None: a newer version wrote the policy. The scheduler of this version leaves it alone, too."""
    try:
        return BackupPolicy.from_document(json.loads(text))
    except PolicyInvalid as error:
        _logger.warning("policy_cannot_be_read", detail=error.detail)
        return None


@lru_cache(maxsize=4)
def _selection(texts: tuple[str, ...]) -> Selection:
    return Selection(tuple(policy for text in texts if (policy := _policy(text)) is not None))
