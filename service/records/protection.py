"""All that is known of every domain and of the promise that was made for it, in a fixed number of statements.

Statements for all domains find what the answer depends on: mostly one point of each domain. Only for domains of which that is not enough
more is read. `service.model.protection` judges what is known.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.garbage import uncollected
from service.model.protection import Protection, protection
from service.model.protection_facts import Known, RepositoryFacts
from service.model.protection_view import may_be_late
from service.records import protection_domains, protection_jobs, protection_points, protection_policies, protection_repositories


@dataclass(frozen=True)
class Landscape:
    """`known`: in the order of the names of the domains. `repositories`: by name."""

    now: datetime
    known: tuple[Known, ...]
    repositories: tuple[RepositoryFacts, ...]

    @property
    def protections(self) -> list[Protection]:
        """In the order of `known`."""
        with uncollected():
            return [protection(known, self.now) for known in self.known]


def read(session: Session, domain_id: str | None = None) -> Landscape:
    """`domain_id` None: all domains."""
    with uncollected():
        return _read(session, domain_id)


def _read(session: Session, domain_id: str | None) -> Landscape:
    now = database_now(session)
    repositories, repository_ids = protection_repositories.read(session, now)
    policies = protection_policies.read(session, repository_ids, now)
    domains = protection_domains.read(session, policies, domain_id, now)
    points = protection_points.read(session, domains, domain_id, now)
    work = protection_jobs.read(session, domain_id, policies.unlimited)
    known = [
        Known(
            domain.facts,
            domain.policy.facts,
            domain.covered_since,
            points.get(domain.facts.id, ()),
            work.runs_of(domain.facts.id, domain.policy.id),
            work.jobs.get(domain.facts.id, ()),
            repositories,
            domain.next_fire_at,
            work.takes_s.get(domain.facts.id, 0.0),
        )
        for domain in domains
    ]
    protection_domains.note_transient(session, [each.domain for each in known if may_be_late(each, now)])
    return Landscape(now, tuple(known), tuple(repositories.values()))
