"""What a policy would do, as the API answers it: its domains, whom it takes them from, the runs of the next days, the load by hour."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from service.api.policy_domains import domains_by_name, shown, why
from service.api.schemas.policy_preview import PreviewChoice
from service.clock import rfc3339
from service.db.engine import database_now
from service.model.backup_policy import BackupPolicy
from service.model.policy_reach import Moved, Reach, reach_of
from service.model.schedule import Outcome
from service.model.schedule_week import Load, PlannedRun, week
from service.model.selectors import Domain, Named, Selector
from service.records import policies, policy_changes


@dataclass(frozen=True)
class PreviewFacts:
    """All that a preview is made of, so that no transaction is open while it is computed. `current`: as it is on record."""

    policy: BackupPolicy
    current: Named | None
    others: list[Named]
    domains: list[Domain]
    now: datetime


def facts_of_document(session: Session, document: Mapping[str, Any]) -> PreviewFacts:
    """A policy of the same name on record is what the document would take the place of. Raises PolicyInvalid."""
    on_record = next(
        (each for each in policies.list_all(session) if isinstance(document, dict) and each.name == document.get("name")), None
    )
    return _facts(session, policy_changes.read(session, document, before=on_record.document if on_record is not None else None))


def facts_of_policy(session: Session, policy: str) -> PreviewFacts:
    """Raises PolicyUnknown."""
    return _facts(session, BackupPolicy.from_document(policies.get(session, policy).document))


def _facts(session: Session, policy: BackupPolicy) -> PreviewFacts:
    on_record = [Named(each.name, Selector.from_document(each.document["selector"])) for each in policies.list_all(session)]
    current = next((each for each in on_record if each.name == policy.name), None)
    others = [each for each in on_record if each is not current]
    return PreviewFacts(policy, current, others, domains_by_name(session), database_now(session))


def preview_of(facts: PreviewFacts, wanted: PreviewChoice) -> dict[str, Any]:
    policy, limit = facts.policy, wanted.limit
    reach = reach_of(policy, facts.current, facts.others, facts.domains)
    until = facts.now + timedelta(days=wanted.days)
    planned = week(policy, reach.has, facts.now, until)
    return {
        "policy": policy.name,
        "is_on_record": facts.current is not None,
        "document": policy.as_document(),
        "begin": rfc3339(facts.now),
        "until": rfc3339(until),
        "domains": _some([{**shown(domain), "why": why(policy.selector, domain)} for domain in reach.has[:limit]], len(reach.has)),
        **_moved(reach, limit),
        "runs": _runs(planned.runs, limit, planned.left_out),
        "load": [_load(load) for load in planned.load],
        "busiest_hour": _load(planned.busiest) if planned.busiest is not None and planned.busiest.starts else None,
    }


def _moved(reach: Reach, limit: int) -> dict[str, Any]:
    groups: dict[str, list[Moved]] = {"takes": reach.takes, "loses": reach.loses, "outranked": reach.outranked, "ties": reach.ties}
    return {
        name: _some([{**shown(domain), "policies": list(names)} for domain, names in moved[:limit]], len(moved))
        for name, moved in groups.items()
    }


def _some(items: Iterable[dict[str, Any]], count: int) -> dict[str, Any]:
    return {"count": count, "items": list(items)}


def _runs(runs: Sequence[PlannedRun], limit: int, left_out: int) -> dict[str, Any]:
    counts = Counter(run.outcome for run in runs)
    first = sorted(runs, key=lambda run: (run.starts_at or run.due_at, run.due_at, run.domain.name, run.track))[:limit]
    by_outcome = {outcome.value: counts[outcome] for outcome in Outcome}
    return {**_some(map(_run, first), len(runs)), "by_outcome": by_outcome, "domains_left_out": left_out}


def _run(run: PlannedRun) -> dict[str, Any]:
    return {
        "domain": {"id": run.domain.id, "name": run.domain.name},
        "track": run.track,
        "due_at": rfc3339(run.due_at),
        "starts_at": rfc3339(run.starts_at) if run.starts_at is not None else None,
        "outcome": run.outcome.value,
        "reason": run.reason.value if run.reason is not None else None,
    }


def _load(load: Load) -> dict[str, Any]:
    return {"hour": rfc3339(load.hour), "starts": load.starts, "by_track": load.by_track}
