"""The domains of the list of protection: those that hosts publish, and those that have schedules although no host publishes them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, func, not_, or_, select, true
from sqlalchemy.orm import Session

from service.db.tables import Domain, Host, Schedule
from service.model.inventory import DomainState
from service.model.protection_facts import DomainFacts, HostFacts
from service.records.host_silence import is_silent
from service.records.protection_policies import Policies, PolicyOfDomain

AnyRow = Row[*tuple[Any, ...]]
MAX_NAMED = 10_000
"""Domains that a statement names. Of more, the statement reads all."""
_ALIVE = (DomainState.running.value, DomainState.paused.value)


class ListedDomain(NamedTuple):
    """`covered_since`: when its policy began to have it. `next_fire_at`: when the schedules say that the next point is begun."""

    facts: DomainFacts
    policy: PolicyOfDomain
    covered_since: datetime
    next_fire_at: datetime | None
    is_scheduled: bool


def read(session: Session, policies: Policies, domain_id: str | None, now: datetime) -> list[ListedDomain]:
    """In the order of their names."""
    reading = _Reading(session, policies, domain_id, now)
    return sorted([*reading.published(), *reading.gone()], key=lambda one: (one.facts.name, one.facts.id))


class _Reading:
    def __init__(self, session: Session, policies: Policies, domain_id: str | None, now: datetime) -> None:
        self._connection = session.connection()
        self._policies = policies
        self._now = now
        self._hosts = _hosts(session, now)
        #: By the id of the domain, then by that of the policy.
        self._schedules: defaultdict[str, dict[str, AnyRow]] = defaultdict(dict)
        for row in self._connection.execute(_schedules(policies, domain_id)).all():
            self._schedules[row.domain_id][row.policy_id] = row
        self._published = _published(self._connection, domain_id, self._hosts)

    def published(self) -> Iterator[ListedDomain]:
        chosen = {row.id: self._policies.of(row.id, row.name, row.host_id) for row in self._published.values()}
        unscheduled = [
            domain for domain, policy in chosen.items() if policy.id is not None and policy.id not in self._schedules.get(domain, ())
        ]
        appeared = _appeared(self._connection, unscheduled) if unscheduled else {}
        for domain, policy in chosen.items():
            row = self._published[domain]
            name, host_id, state = row[1], row[2], row[3]
            facts = DomainFacts(domain, name, self._hosts[host_id], state == DomainState.paused)
            yield self._listed(facts, policy, appeared.get(domain, self._now))

    def gone(self) -> Iterator[ListedDomain]:
        """Domains that have schedules, and that no host publishes."""
        gone = [domain for domain in self._schedules if domain not in self._published]
        if not gone:
            return
        for domain, name, host_id, since in self._connection.execute(_last_places(gone)).all():
            policy = self._policies.of(domain, name, host_id)
            facts = DomainFacts(domain, name, self._hosts.get(host_id) or HostFacts(host_id), gone_since=since or self._now)
            yield self._listed(facts, policy, self._now)

    def _listed(self, facts: DomainFacts, policy: PolicyOfDomain, appeared_at: datetime) -> ListedDomain:
        schedule = self._schedules[facts.id].get(policy.id) if policy.id is not None and facts.id in self._schedules else None
        if schedule is not None:
            return ListedDomain(facts, policy, schedule[2], schedule[3], is_scheduled=True)
        # The scheduler has not looked since the policy was changed or the domain appeared.
        return ListedDomain(facts, policy, max(appeared_at, policy.updated_at or appeared_at), None, is_scheduled=False)


# --- domains that hosts publish -------------------------------------------------------------------


def _hosts(session: Session, now: datetime) -> dict[str, HostFacts]:
    return {
        host.id: HostFacts(
            host.id,
            host.last_seen if is_silent(host, now) else None,
            host.libvirt_error or "it does not answer" if not host.libvirt_connected else None,
        )
        for host in session.scalars(select(Host))
    }


def _published(connection: Connection, domain_id: str | None, hosts: dict[str, HostFacts]) -> dict[str, AnyRow]:
    """One row for each domain. A domain that two hosts publish counts on the host that runs it, as jobs for it do."""
    rows = select(Domain.id, Domain.name, Domain.host_id, Domain.state, Domain.published_at).order_by(Domain.host_id)
    chosen: dict[str, AnyRow] = {}
    for row in connection.execute(rows if domain_id is None else rows.where(Domain.id == domain_id)).all():
        other = chosen.setdefault(row[0], row)
        if other is not row and _claim(row, hosts) > _claim(other, hosts):
            chosen[row[0]] = row
    return chosen


def _claim(row: AnyRow, hosts: dict[str, HostFacts]) -> tuple[bool, datetime]:
    """The host with the larger claim has the domain, as for schedules (`service.records.listed_domains`)."""
    return row.state in _ALIVE and hosts[row.host_id].silent_since is None, row.published_at


def _appeared(connection: Connection, domains: Sequence[str]) -> dict[str, datetime]:
    """By the id of the domain: when a host first published it."""
    at = func.coalesce(Domain.appeared_at, Domain.published_at, type_=Domain.published_at.type)
    rows = select(Domain.id, func.min(at, type_=Domain.published_at.type)).group_by(Domain.id)
    return {row[0]: row[1] for row in connection.execute(rows.where(Domain.id.in_(domains)) if len(domains) <= MAX_NAMED else rows).all()}


def note_transient(session: Session, domains: Sequence[DomainFacts]) -> None:
    """Which of them libvirt forgets when they are shut off. Their documents are read for that, so this is for domains with a late point."""
    if not domains:
        return
    is_transient = Domain.document["persistent"].as_boolean().is_(False)
    named = [domain.id for domain in domains]
    rows = select(Domain.id, Domain.host_id).where(is_transient, Domain.id.in_(named) if len(named) <= MAX_NAMED else true())
    transient = {(row[0], row[1]) for row in session.connection().execute(rows).all()}
    for domain in domains:
        domain.is_persistent = (domain.id, domain.host.id) not in transient


# --- schedules ------------------------------------------------------------------------------------


def _schedules(policies: Policies, domain_id: str | None) -> Select[*tuple[Any, ...]]:
    created_at, fire_at = Schedule.created_at, Schedule.fire_at
    rows = select(
        Schedule.domain_id,
        Schedule.policy_id,
        func.min(created_at, type_=created_at.type).label("created_at"),
        func.min(fire_at, type_=fire_at.type).label("fire_at"),
    ).group_by(Schedule.domain_id, Schedule.policy_id)
    if domain_id is not None:
        rows = rows.where(Schedule.domain_id == domain_id)
    others = [and_(Schedule.policy_id == policy_id, Schedule.track == track) for policy_id, track in policies.tracks_without_points]
    return rows.where(not_(or_(*others))) if others else rows


def _last_places(domains: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """The domain, its name, its host, and since when it is gone, as its schedules have them."""
    gone_since = Schedule.gone_since
    columns = func.max(Schedule.domain_name), func.max(Schedule.host_id), func.min(gone_since, type_=gone_since.type)
    return select(Schedule.domain_id, *columns).where(Schedule.domain_id.in_(domains)).group_by(Schedule.domain_id)
