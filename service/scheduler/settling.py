"""Decides what becomes of some schedules now, and asks for the jobs of their runs, in the transaction of its caller.

A schedule is also brought up to date here: its policy may have been changed, and its domain may have moved, left its policy or gone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from service.errors import StillpointError
from service.model.origin import SCHEDULE_LABEL, Origin
from service.model.schedule import ON_TIME, Decision, Outcome, Reason, Run, Standing, begin, decide, give_up, key_of, next_due, start_of
from service.model.schedule_rule import ScheduleRule
from service.model.selectors import Domain, Tie
from service.model.track import Track
from service.records import listed_domains, policy_limits, queue, schedules
from service.records.frozen_guests import refuse_if_frozen
from service.records.orders import order_of
from service.records.policy_book import Entry, PolicyBook
from service.records.schedules import ScheduleRow

GONE_BELIEVED = timedelta(minutes=4)
"""A domain that no host has listed for a shorter time may be on its way to another host: its runs wait. Shorter than `ON_TIME`."""
GONE_KEPT = timedelta(days=7)
"""After so long without its domain a schedule ends. Until then each of its runs is skipped, and on record."""
CLOCK_AHEAD = ON_TIME
"""An outcome of an instant that is further in the future was decided by a clock that was ahead."""


class Started(NamedTuple):
    """A run whose job was made. `late_s`: after it was to begin."""

    job_id: str
    late_s: float


@dataclass
class Settled:
    """`runs`: everything that was decided."""

    runs: list[Run] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """What is known when schedules are settled, read once for all of them."""

    now: datetime
    book: PolicyBook
    domains: Mapping[str, Domain]
    jobs_at_work: Mapping[str, str]
    decided: Mapping[str, Sequence[datetime]]

    @classmethod
    def read(cls, session: Session, book: PolicyBook, rows: Sequence[ScheduleRow], now: datetime) -> "Facts":
        ids = [row.id for row in rows]
        domains = listed_domains.listed(session, now, {row.domain_id for row in rows})
        return cls(now, book, domains, schedules.jobs_at_work(session, ids), schedules.decided(session, rows))


def settle(session: Session, book: PolicyBook, ids: Collection[str], now: datetime, queue_limit: int) -> Settled:
    """`book`: with the policies of these schedules locked."""
    rows = schedules.locked(session, ids)
    facts = Facts.read(session, book, rows, now) if rows else None
    settled, changes, ended = Settled(), list[dict[str, Any]](), list[str]()
    # A new job waits for the turn of its domain. All processes take these in one order, as two could wait for each other otherwise.
    for row in sorted(rows, key=lambda row: (row.domain_id, row.id)):
        assert facts is not None
        one = _One(session, row, facts, settled, queue_limit)
        values = one.settle()
        if values is None:
            ended.append(row.id)
        else:
            changes.append({"id": row.id, **values})
    schedules.change(session, changes)
    schedules.remove(session, ended)
    return settled


class _One:
    """One schedule. `settle` returns its new values. None: the schedule ends."""

    def __init__(self, session: Session, row: ScheduleRow, facts: Facts, settled: Settled, queue_limit: int) -> None:
        self._session = session
        self._row = row
        self._facts = facts
        self._settled = settled
        self._queue_limit = queue_limit
        self._entry: Entry = facts.book.entries[row.policy_id]
        self._track: Track | None = self._entry.policy.track(row.track)
        self._domain = facts.domains.get(row.domain_id)
        self._rule = schedules.rule_in(row.rule)
        self._key = key_of(row.track, row.domain_id)
        self._decided = facts.decided.get(row.id, ())

    def settle(self) -> dict[str, Any] | None:
        if self._domain is None and self._gone_for >= GONE_KEPT:
            return self._end(Reason.domain_gone)
        if self._track is None or self._has_left:
            return self._end(Reason.policy_changed)
        if self._rule != self._track.schedule:
            return self._begin_again(self._track.schedule)
        if self._domain is None and self._gone_for < GONE_BELIEVED:
            return self._values(self._row.next_due_at, self._gone_since + GONE_BELIEVED)
        if self._clock_was_ahead():
            schedules.take_back(self._session, self._row.id, self._facts.now)
            left = schedules.decided_after(self._session, self._row.id, self._facts.now)
            return self._follow(begin(self._rule, self._entry.policy.blackouts, self._key, self._facts.now, left))
        return self._decide(self._track)

    def _decide(self, track: Track) -> dict[str, Any]:
        standing = Standing(
            self._key, self._row.next_due_at, self._obstacle, self._facts.jobs_at_work.get(self._row.id), decided=self._decided
        )
        decision = decide(self._rule, self._entry.policy.blackouts, standing, self._facts.now)
        job_id, runs = None, list(decision.runs)
        if runs and runs[-1].outcome is Outcome.queued:
            runs[-1], job_id = self._ask(track, runs[-1])
        self._note(runs, job_id)
        return self._follow(decision, job_id)

    def _ask(self, track: Track, run: Run) -> tuple[Run, str | None]:
        """Ask for the job of a run."""
        assert self._domain is not None
        try:
            job_id = self._job(track, self._domain)
        except StillpointError as error:
            return run.refused(error.as_document()), None
        start = start_of(self._rule, self._entry.policy.blackouts, self._key, run.due_at)
        self._settled.started.append(Started(job_id, max(0.0, (self._facts.now - start.at).total_seconds())))
        return run, job_id

    def _job(self, track: Track, domain: Domain) -> str:
        """Raises StillpointError, before anything was written."""
        targets = listed_domains.targets_of(self._session, domain) if track.job.leave_out else ()
        request = track.request_for(domain.id, None, targets)
        labels = {**Origin(self._entry.name, track.name).as_labels(), SCHEDULE_LABEL: self._row.id}
        order = order_of(self._session, request, labels)
        if request.would_freeze:
            refuse_if_frozen(self._session, order.place)
        job_id = queue.enqueue(self._session, order.as_new_job(), queue_limit=self._queue_limit).job_id
        policy_limits.allow(self._session, self._entry.name, self._entry.policy.limits, order.place.host_id, order.repository_id)
        return job_id

    def _end(self, reason: Reason) -> dict[str, Any] | None:
        given_up = self._give_up(reason, self._facts.now)
        return self._follow(given_up) if given_up.has_more else None

    def _begin_again(self, rule: ScheduleRule) -> dict[str, Any]:
        """What was due before the policy was changed is given up, and what is due since then is decided by the new rule."""
        since = min(self._entry.updated_at, self._facts.now)
        given_up = self._give_up(Reason.policy_changed, since)
        if given_up.has_more:
            return self._follow(given_up)
        decision = begin(rule, self._entry.policy.blackouts, self._key, since, self._decided)
        return {**self._follow(decision), "rule": schedules.text_of(rule)}

    def _give_up(self, reason: Reason, until: datetime) -> Decision:
        given_up = give_up(self._rule, Standing(self._key, self._row.next_due_at, decided=self._decided), reason, until)
        self._note(given_up.runs, None)
        return given_up

    # --- what is so now ---------------------------------------------------------------------------

    @property
    def _gone_since(self) -> datetime:
        since: datetime | None = self._row.gone_since
        return since if since is not None else self._facts.now

    @property
    def _gone_for(self) -> timedelta:
        return self._facts.now - self._gone_since

    @property
    def _has_left(self) -> bool:
        """Whether another policy has the domain, or none. Of a tie, each policy keeps what it had."""
        if self._domain is None:
            return False
        holder = self._facts.book.policy_of(self._domain)
        if isinstance(holder, Tie):
            return self._entry.name not in holder.policies
        return holder is not self._entry

    @property
    def _obstacle(self) -> Reason | None:
        if self._entry.policy.paused:
            return Reason.paused
        if self._domain is None:
            return Reason.domain_gone
        return Reason.tie if isinstance(self._facts.book.policy_of(self._domain), Tie) else None

    def _clock_was_ahead(self) -> bool:
        """Whether the next run is later than the rule says, because later instants were decided before they came."""
        expected = next_due(self._rule, self._facts.now + CLOCK_AHEAD)
        return expected is not None and (self._row.next_due_at is None or self._row.next_due_at > expected)

    # --- what is written --------------------------------------------------------------------------

    def _note(self, runs: Sequence[Run], job_id: str | None) -> None:
        """`job_id`: of the last one."""
        with_jobs = [(run, job_id if run is runs[-1] else None) for run in runs]
        schedules.note_runs(self._session, self._row, self._entry.name, with_jobs, self._facts.now)
        self._settled.runs += runs

    def _follow(self, decision: Decision, job_id: str | None = None) -> dict[str, Any]:
        return self._values(decision.next_due_at, decision.fire_at, job_id)

    def _values(self, next_due_at: datetime | None, fire_at: datetime | None, job_id: str | None = None) -> dict[str, Any]:
        return {
            "next_due_at": next_due_at,
            "fire_at": fire_at,
            "last_job_id": job_id or self._row.last_job_id,
            "rule": self._row.rule,
            "gone_since": self._gone_since if self._domain is None else None,
            "domain_name": self._domain.name if self._domain is not None else self._row.domain_name,
            "host_id": self._domain.host if self._domain is not None else self._row.host_id,
        }
