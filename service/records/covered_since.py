"""Since when a policy has a domain, as its schedules tell: what a promise does not look back further than."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import Schedule


def by_policy_and_domain(session: Session, policy_ids: Collection[str], domain_ids: Collection[str]) -> dict[tuple[str, str], datetime]:
    at = Schedule.created_at
    of_both = select(Schedule.policy_id, Schedule.domain_id, func.min(at, type_=at.type)).group_by(Schedule.policy_id, Schedule.domain_id)
    rows = session.execute(of_both.where(Schedule.policy_id.in_(policy_ids), Schedule.domain_id.in_(domain_ids)))
    return {(row[0], row[1]): row[2] for row in rows}
