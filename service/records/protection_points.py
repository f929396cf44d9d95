"""The points of each domain on which its protection depends, and not all others.

Mostly that is the newest point. Only of a domain whose newest point does not keep the promise more is read: the newest point of each state
and verdict, and points that have a proof. `service.model.protection` finds the same with these points as with all.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, null, or_, select, true, tuple_, union_all
from sqlalchemy.orm import Session, aliased

from service.db.tables import Domain, Job, ProvenPoint, RecoveryPoint, Schedule
from service.model.lifecycle import GOOD_POINTS
from service.model.protection_facts import PointFacts, PolicyFacts, Promise, ProofFacts
from service.model.protection_view import CLOCK_TOLERANCE, always_enough, look
from service.model.verdict import Verdict
from service.records.protection_domains import MAX_NAMED, AnyRow, ListedDomain
from service.records.protection_jobs import first_that_lowers

Rows = Select[*tuple[Any, ...]]
_AT = RecoveryPoint.point_in_time_at
_COLUMNS = (RecoveryPoint.domain_id, RecoveryPoint.id, _AT, RecoveryPoint.verdict, RecoveryPoint.state, RecoveryPoint.repository_id)
_NOTHING = Promise()
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_JOB_OF_POINT = Job.id == RecoveryPoint.job_id
_IS_OFFLINE = RecoveryPoint.verdict == Verdict.offline.value
_SHUT_OFF_CLEANLY = case(
    (_IS_OFFLINE, select(Job.evidence[("survey", "shut_off_cleanly")].as_boolean()).where(_JOB_OF_POINT).scalar_subquery()), else_=null()
).label("shut_off_cleanly")
_OF_PROOF = (*_COLUMNS, _SHUT_OFF_CLEANLY, ProvenPoint.kind, ProvenPoint.at)
_REASONS = select(Job.verdict_reasons).where(_JOB_OF_POINT).scalar_subquery().label("reasons")


def read(session: Session, domains: Sequence[ListedDomain], domain_id: str | None, now: datetime) -> Mapping[str, Sequence[PointFacts]]:
    """By the id of the domain, newest first."""
    reading = _Reading(session, domains, now)
    reading.read_newest(domain_id, [domain.facts.id for domain in domains if domain.facts.gone_since is not None])
    reading.read_what_they_lack()
    reading.read_proofs(domains)
    return reading.points


class _Reading:
    def __init__(self, session: Session, domains: Sequence[ListedDomain], now: datetime) -> None:
        self._connection = session.connection()
        self._promises = {
            domain.facts.id: domain.policy.facts.promise for domain in domains if isinstance(domain.policy.facts, PolicyFacts)
        }
        self._now = now
        self._latest = now + CLOCK_TOLERANCE
        #: By the id of the domain; newest first.
        self.points: dict[str, list[PointFacts]] = {}

    def read_newest(self, domain_id: str | None, gone: Sequence[str]) -> None:
        rows = self._rows(_newest(Domain.id, Domain.id == domain_id if domain_id is not None else true()))
        if gone:
            rows = [*rows, *self._rows(_newest(Schedule.domain_id, _are(Schedule.domain_id, gone)))]
        for domain, point_id, at, verdict, state, repository_id in rows:
            point = PointFacts(point_id, at, _VERDICTS[verdict], state, {}, repository_id)
            if domain in self.points:
                self._put(domain, point)
            else:
                self.points[domain] = [point]

    def read_what_they_lack(self) -> None:
        short = [domain for domain, points in self.points.items() if not self._is_enough(points, self._promise_of(domain))]
        if not short:
            return
        self._add(self._rows(_of_each_kind(short, self._latest)))
        offline = [domain for domain in short if self._may_have_been_shut_down_before(domain)]
        if offline:
            self._add(self._rows(_offline(offline)))

    def read_proofs(self, domains: Sequence[ListedDomain]) -> None:
        """First the newest point of each domain that is proven. Mostly its proof is the newest, too."""
        promised = {domain: promise.proof.kind.value for domain, promise in self._promises.items() if promise.proof is not None}
        if not promised:
            return
        kinds, among = set(promised.values()), _domains_with_proof(domains, promised)
        rows = self._rows(_newest_proven(kinds, among))
        self._add_proofs(rows)
        newest = {(row[0], row[7]): row[9] for row in rows}
        unclear = [domain for domain, kind in promised.items() if self._lacks_proofs(domain, newest.get((domain, kind)))]
        if unclear:
            self._add_proofs(self._rows(_all_proven(kinds, unclear)))

    # --- whether more must be read ----------------------------------------------------------------

    def _promise_of(self, domain: str) -> Promise:
        return self._promises.get(domain, _NOTHING)

    def _is_enough(self, points: Sequence[PointFacts], promise: Promise) -> bool:
        """The newest point is good, good enough, and not of the future."""
        newest = points[0]
        return newest.verdict in always_enough(promise.verdict) and newest.is_good and newest.at <= self._latest and len(points) == 1

    def _may_have_been_shut_down_before(self, domain: str) -> bool:
        """The newest point of a domain that was shut off is not good enough, because nobody shut it down. An earlier one may be."""
        offline = next((point for point in self.points[domain] if point.verdict is Verdict.offline and point.is_good), None)
        return self._promise_of(domain).verdict is not None and offline is not None and offline.shut_off_cleanly is not True

    def _lacks_proofs(self, domain: str, newest: datetime | None) -> bool:
        """`newest`: when a point of the domain was last proven. That is not the point that was read, or the point does not count."""
        points = self.points.get(domain)
        return newest is not None and points is not None and look(points, self._promise_of(domain), self._now).proven_at != newest

    # --- what was read ----------------------------------------------------------------------------

    def _rows(self, rows: Rows) -> Sequence[AnyRow]:
        return self._connection.execute(rows).all()

    def _add(self, rows: Sequence[AnyRow]) -> None:
        """In the place of what was known of these points."""
        for row in rows:
            if row[0] not in self.points:
                continue
            point = _facts(row)
            point.lowered_by, point.shut_off_cleanly = first_that_lowers(row.reasons), row.shut_off_cleanly
            self._put(row[0], point)

    def _add_proofs(self, rows: Sequence[AnyRow]) -> None:
        for row in rows:
            points = self.points.get(row[0])
            if points is None:
                continue
            point = next((known for known in points if known.id == row[1]), None)
            if point is None:
                point = _facts(row)
                point.shut_off_cleanly = row[6]
                self._put(row[0], point)
            point.proofs = {**point.proofs, row[7]: ProofFacts(row[8], ok=True)}

    def _put(self, domain: str, point: PointFacts) -> None:
        others = [known for known in self.points[domain] if known.id != point.id]
        self.points[domain] = sorted((*others, point), key=_by_time, reverse=True)


def _facts(row: AnyRow) -> PointFacts:
    return PointFacts(row[1], row[2], _VERDICTS[row[3]], row[4], {}, row[5])


def _by_time(point: PointFacts) -> datetime:
    return point.at


# --- statements -----------------------------------------------------------------------------------


def _newest(domain: Any, condition: ColumnElement[bool]) -> Rows:
    """The newest point of each domain, whatever its state. `domain`: the column that names the domains."""
    other = aliased(RecoveryPoint)
    newest = select(func.max(other.point_in_time_at, type_=_AT.type)).where(other.domain_id == domain).scalar_subquery()
    return select(*_COLUMNS).where(tuple_(RecoveryPoint.domain_id, _AT).in_(select(domain, newest).where(condition)))


def _of_each_kind(domains: Sequence[str], latest: datetime) -> Rows:
    """The newest points of each state and verdict: one that may count, and one that is of the future."""
    of_kind = RecoveryPoint.domain_id, RecoveryPoint.state, RecoveryPoint.verdict
    newest = select(*of_kind, func.max(_AT, type_=_AT.type).label("at")).where(_are(RecoveryPoint.domain_id, domains)).group_by(*of_kind)
    both = union_all(newest.where(latest >= _AT), newest.where(latest < _AT)).subquery()
    is_it = and_(*(column == both.c[column.key] for column in of_kind), both.c.at == _AT)
    return select(*_COLUMNS, _SHUT_OFF_CLEANLY, _REASONS).select_from(both).join(RecoveryPoint, is_it)


def _offline(domains: Sequence[str]) -> Rows:
    of_offline = select(*_COLUMNS, _SHUT_OFF_CLEANLY, _REASONS).where(_IS_OFFLINE, RecoveryPoint.state.in_(GOOD_POINTS))
    return of_offline.where(_are(RecoveryPoint.domain_id, domains))


def _domains_with_proof(domains: Sequence[ListedDomain], promised: Collection[str]) -> ColumnElement[bool]:
    """The domains whose policy promises a proof. They are named by their schedules, so that the statement names only a few."""
    policies = {domain.policy.id for domain in domains if domain.facts.id in promised}
    unscheduled = [domain.facts.id for domain in domains if domain.facts.id in promised and not domain.is_scheduled]
    scheduled = select(Schedule.domain_id).where(Schedule.policy_id.in_(policies))
    return or_(ProvenPoint.domain_id.in_(scheduled), _are(ProvenPoint.domain_id, unscheduled))


def _newest_proven(kinds: Collection[str], among: ColumnElement[bool]) -> Rows:
    """The newest point of each domain that has a proof of the kind, and when a point of the domain last got one."""
    of_kind, at, proven_at = (ProvenPoint.domain_id, ProvenPoint.kind), ProvenPoint.point_in_time_at, ProvenPoint.at
    both = (func.max(at, type_=at.type).label("at"), func.max(proven_at, type_=proven_at.type).label("last_proven_at"))
    newest = select(*of_kind, *both).where(among, ProvenPoint.kind.in_(kinds)).group_by(*of_kind).subquery()
    is_it = and_(*(column == newest.c[column.key] for column in of_kind), at == newest.c.at)
    of_points = select(*_OF_PROOF, newest.c.last_proven_at).select_from(newest).join(ProvenPoint, is_it)
    return of_points.join(RecoveryPoint, RecoveryPoint.id == ProvenPoint.point_id)


def _all_proven(kinds: Collection[str], domains: Sequence[str]) -> Rows:
    of_points = select(*_OF_PROOF).join(ProvenPoint, RecoveryPoint.id == ProvenPoint.point_id)
    return of_points.where(ProvenPoint.kind.in_(kinds), _are(ProvenPoint.domain_id, domains))


def _are(column: Any, named: Sequence[str]) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = column.in_(named) if len(named) <= MAX_NAMED else column.is_not(None)
    return condition
