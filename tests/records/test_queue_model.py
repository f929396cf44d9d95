"""The queue against a model of it: whatever hosts, clocks, deaths and cancels do, both tell the same story.

The model is a dictionary and a few lines of rules. After every step it and the database must agree, and every claim
must return the very job that the model says is next: that includes progress (a job that can run is not overlooked),
one job per domain, and the limits of hosts. Each run has other examples, as many as the profile of Hypothesis says.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, select

from service.db.engine import Database
from service.db.tables import Event, Job, Slot
from service.errors import CancelRefused, LeaseLost
from service.model.lifecycle import FINAL_STATES, JobState
from service.records import events, queue, slots
from tests.scenes.documents import stale_texts
from tests.scenes.orders import a_snapshot

STEPS = 20
LEASE_S = 10.0
LIMITS = {"host:hv1:quick": 3, "host:hv2:quick": 1}

HOSTS = st.sampled_from(["hv1", "hv2"])
KINDS = st.sampled_from(["snapshot", "snapshot", "snapshot", "preflight", "thaw"])
Order = tuple[str, str, str, int]
ORDERS = st.tuples(HOSTS, st.sampled_from("abcd"), KINDS, st.sampled_from([0, 0, 0, 15]))


@dataclass
class Known:
    """What the model knows of a job."""

    host: str
    domain: str
    kind: str
    run_after: datetime
    state: str = "queued"
    attempt: int = 0
    token: str | None = None
    lease_until: datetime | None = None
    cancel: bool = False

    @property
    def holds_its_domain(self) -> bool:
        return self.state in ("running", "interrupted") and self.kind != "thaw"

    @property
    def resources(self) -> list[str]:
        return [] if self.kind == "thaw" else [f"host:{self.host}:quick"]


class QueueMachine(RuleBasedStateMachine):
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.jobs: dict[str, Known] = {}
        self.claims: list[tuple[str, str]] = []
        #: By the events: the states that they lead to, and the last one that was read.
        self.told: dict[str, str] = {}
        self.last_event = 0
        with self.database.write() as session:
            for table in (Slot, Job, Event):
                session.execute(delete(table))
            for resource, limit in LIMITS.items():
                slots.ensure_slots(session, resource, limit)

    # --- what can happen ------------------------------------------------------------------------

    @rule(orders=st.lists(ORDERS, min_size=2, max_size=6))
    def enqueue(self, orders: list[Order]) -> None:
        with self.database.write() as session:
            for host, domain, kind, delay in orders:
                # No two alike: ids are random, and so would be the order of jobs that are due at the same instant.
                self.now += timedelta(milliseconds=1)
                run_after = self.now + timedelta(seconds=delay)
                order = a_snapshot(domain, host, kind=kind, pause_s=delay)
                job_id = queue.enqueue(session, order, now=self.now).job_id
                self.jobs[job_id] = Known(host, domain, kind, run_after)

    @rule(host=HOSTS)
    def claim_one(self, host: str) -> None:
        self._claim(host)

    @rule(host=HOSTS)
    def claim_all(self, host: str) -> None:
        self._claim_all(host)

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(self._running()))
        job = self.jobs[job_id]
        with self.database.write() as session:
            assert queue.renew(session, job_id, str(job.token), LEASE_S, now=self.now) == job.cancel
        job.lease_until = self.now + timedelta(seconds=LEASE_S)

    @precondition(lambda self: self._running())
    @rule(data=st.data(), state=st.sampled_from(sorted(FINAL_STATES)))
    def finish(self, data: st.DataObject, state: JobState) -> None:
        self._finish(data.draw(st.sampled_from(self._running())), state)

    @precondition(lambda self: self._lost_claims())
    @rule(data=st.data())
    def zombie_wakes(self, data: st.DataObject) -> None:
        """A worker that lost its lease, whatever became of its job since."""
        self._is_refused(*data.draw(st.sampled_from(self._lost_claims())))

    @rule(seconds=st.sampled_from([1, 6, 11]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(host=HOSTS)
    def reap(self, host: str) -> None:
        self._release(host, all_running=False)

    @rule(host=HOSTS)
    def worker_starts_again(self, host: str) -> None:
        self._release(host, all_running=True)

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def worker_is_stopped_past_its_lease(self, data: st.DataObject) -> None:
        """And wakes when its job runs again. The single steps of this are rules too, but seldom come in this order."""
        job_id = data.draw(st.sampled_from(self._running()))
        token = str(self.jobs[job_id].token)
        self.now += timedelta(seconds=LEASE_S + 1)
        self._release(self.jobs[job_id].host, all_running=False)
        self._resolve(job_id, JobState.queued)
        self._claim_all(self.jobs[job_id].host)
        self._is_refused(job_id, token)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        job = self.jobs[job_id]
        try:
            with self.database.write() as session:
                queue.request_cancel(session, job_id)
        except CancelRefused:
            assert job.state in FINAL_STATES
            return
        assert job.state not in FINAL_STATES
        if job.state == "queued":
            job.state = "cancelled"
        else:
            job.cancel = True

    @precondition(lambda self: any(job.state == "interrupted" for job in self.jobs.values()))
    @rule(data=st.data(), to=st.sampled_from([JobState.queued, JobState.queued, JobState.failed, JobState.cancelled]))
    def recovery_decides(self, data: st.DataObject, to: JobState) -> None:
        self._resolve(data.draw(st.sampled_from([i for i, job in self.jobs.items() if job.state == "interrupted"])), to)

    # --- what must always hold ------------------------------------------------------------------

    @invariant()
    def model_and_database_agree(self) -> None:
        columns = (Job.id, Job.state, Job.attempt, Job.lease_token, Job.cancel_requested)
        with self.database.read() as session:
            rows = {row.id: tuple(row)[1:] for row in session.execute(select(*columns))}
            slot_rows = [(row.resource, row.job_id) for row in session.execute(select(Slot.resource, Slot.job_id))]
        assert rows == {i: (job.state, job.attempt, job.token, job.cancel) for i, job in self.jobs.items()}
        needed = [(resource, i) for i, job in self.jobs.items() if job.state == "running" for resource in job.resources]
        assert sorted((resource, i) for resource, i in slot_rows if i is not None) == sorted(needed)
        assert Counter(resource for resource, _ in slot_rows) == LIMITS
        held = [job.domain for job in self.jobs.values() if job.holds_its_domain]
        assert len(held) == len(set(held))

    @invariant()
    def documents_say_what_the_rows_say(self) -> None:
        assert stale_texts(self.database) == []

    @invariant()
    def events_tell_how_each_job_came_to_its_state(self) -> None:
        with self.database.read() as session:
            told = events.after(session, self.last_event, 10_000)
        for event in told:
            assert event.job_id is not None
            assert self.told.get(event.job_id) == event.moved_from
            self.told[event.job_id] = event.moved_to
            self.last_event = event.id
        assert self.told == {i: job.state for i, job in self.jobs.items()}

    def teardown(self) -> None:
        """Nothing is lost: let every worker die, recover, and run to the end. Each job must arrive."""
        for _ in range(len(self.jobs) + 1):
            self.now += timedelta(minutes=1)
            for host in ("hv1", "hv2"):
                self._release(host, all_running=False)
            for job_id in [i for i, job in self.jobs.items() if job.state == "interrupted"]:
                self._resolve(job_id, JobState.queued)
            for host in ("hv1", "hv2"):
                while (next_id := self._claim(host)) is not None:
                    self._finish(next_id, JobState.succeeded)
            if all(job.state in FINAL_STATES for job in self.jobs.values()):
                break
        assert [job for job in self.jobs.values() if job.state not in FINAL_STATES] == []
        self.model_and_database_agree()

    # --- the model's own rules ------------------------------------------------------------------

    def _next(self, host: str) -> str | None:
        due = [i for i, job in self.jobs.items() if job.state == "queued" and job.host == host and job.run_after <= self.now]
        runnable = [i for i in due if self._may_run(self.jobs[i])]
        return min(runnable, key=lambda i: (self.jobs[i].kind != "thaw", self.jobs[i].run_after, i), default=None)

    def _may_run(self, job: Known) -> bool:
        if job.kind == "thaw":
            return True
        if any(other.holds_its_domain and other.domain == job.domain for other in self.jobs.values()):
            return False
        running = [resource for other in self.jobs.values() if other.state == "running" for resource in other.resources]
        return all(running.count(resource) < LIMITS[resource] for resource in job.resources)

    def _claim(self, host: str) -> str | None:
        expected = self._next(host)
        with self.database.write() as session:
            claim = queue.claim(session, host, "worker", LEASE_S, now=self.now)
        assert (claim.job_id if claim else None) == expected
        if claim is not None:
            job = self.jobs[claim.job_id]
            job.state, job.token, job.lease_until = "running", claim.lease_token, self.now + timedelta(seconds=LEASE_S)
            job.attempt += 1
            assert claim.attempt == job.attempt
            self.claims.append((claim.job_id, claim.lease_token))
        return expected

    def _claim_all(self, host: str) -> None:
        while self._claim(host):
            pass

    def _finish(self, job_id: str, state: JobState) -> None:
        job = self.jobs[job_id]
        with self.database.write() as session:
            queue.finish(session, job_id, str(job.token), state, {})
        job.state, job.token = state.value, None

    def _is_refused(self, job_id: str, token: str) -> None:
        with pytest.raises(LeaseLost), self.database.write() as session:
            queue.finish(session, job_id, token, JobState.succeeded, {})
        with pytest.raises(LeaseLost), self.database.write() as session:
            queue.renew(session, job_id, token, LEASE_S, now=self.now)

    def _running(self) -> list[str]:
        return [i for i, job in self.jobs.items() if job.state == "running"]

    def _lost_claims(self) -> list[tuple[str, str]]:
        return [(i, token) for i, token in self.claims if self.jobs[i].token != token]

    def _release(self, host: str, *, all_running: bool) -> None:
        with self.database.write() as session:
            released = queue.release_expired(session, host, all_running=all_running, now=self.now)
        lost = [i for i, job in self.jobs.items() if job.state == "running" and job.host == host and (all_running or self._expired(job))]
        assert sorted(released) == sorted(lost)
        for job_id in lost:
            self.jobs[job_id].state, self.jobs[job_id].token = "interrupted", None

    def _expired(self, job: Known) -> bool:
        return job.lease_until is not None and job.lease_until < self.now

    def _resolve(self, job_id: str, to: JobState) -> None:
        job = self.jobs[job_id]
        with self.database.write() as session:
            queue.resolve_interrupted(session, job_id, to, {})
        job.state = "cancelled" if job.cancel and to is JobState.queued else to.value


@pytest.mark.timeout(600)
def test_the_queue_behaves_as_its_model(database: Database) -> None:
    machine = type("Machine", (QueueMachine,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            stateful_step_count=STEPS,
            database=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
