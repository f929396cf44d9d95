"""A host that never returns is forgotten: its jobs end with a true story, its domains are free, and a host that lives is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from service.db.engine import Database
from service.db.tables import Domain, Gate, Host, Job, Slot
from service.errors import HostNotSilent, HostUnknown, LeaseLost
from service.model.foreign_freeze import by_job
from service.model.intent import Intent, Overlay
from service.records import forgotten_host, freeze_lease, gates, queue
from service.records.forgotten_host import Forgotten
from service.records.queue import Claim
from tests.scenes.orders import a_snapshot, a_thaw
from tests.scenes.queue import add, allow, claimed, job_of, try_to_claim
from tests.scenes.registered_hosts import SILENCE_S, heard_ago, publish, register

FROZEN = Intent(True, [Overlay("vda", "/i/a", "qcow2", "/i/b", 1024)]).as_document()


@pytest.fixture
def dead(database: Database) -> Iterator["Dead"]:
    yield Dead(database)


class Dead:
    """Host hv1 with its jobs, silent as far as the clock goes; hv2 lives."""

    def __init__(self, database: Database) -> None:
        self.database = database
        register(database, "hv1")
        register(database, "hv2")
        allow(database, "host:hv1:quick", 4)
        allow(database, "host:hv2:quick", 4)

    def running(self, domain: str = "db1", kind: str = "snapshot", **written: Any) -> Claim:
        add(self.database, a_snapshot(domain, "hv1", kind=kind))
        claim = claimed(self.database, "hv1")
        with self.database.write() as session:
            queue.write(session, claim.job_id, claim.lease_token, {"phase": "preflight", **written})
        return claim

    def falls_silent(self, host: str = "hv1") -> None:
        heard_ago(self.database, SILENCE_S + 5, host)
        with self.database.write() as session:
            for job in session.scalars(select(Job).where(Job.host_id == host, Job.state == "running")):
                job.lease_until = datetime.now(UTC) - timedelta(seconds=30)

    def forget(self, host: str = "hv1") -> Forgotten:
        with self.database.write() as session:
            return forgotten_host.forget(session, host)

    def count(self, table: type, *conditions: Any) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(table).where(*conditions)) or 0


# --- the fence ------------------------------------------------------------------------------------


def test_a_host_that_was_heard_of_lately_is_not_forgotten(dead: Dead) -> None:
    claim = dead.running()
    heard_ago(dead.database, SILENCE_S - 10)
    with pytest.raises(HostNotSilent) as refused:
        dead.forget()
    assert refused.value.facts["silence_s"] == SILENCE_S
    assert 0 < refused.value.facts["free_in_s"] <= 60
    assert job_of(dead.database, claim.job_id).state == "running"


def test_a_lease_that_still_runs_is_word_of_the_host_too(dead: Dead) -> None:
    dead.running()
    heard_ago(dead.database, SILENCE_S + 5)
    with pytest.raises(HostNotSilent):
        dead.forget()


def test_the_silence_is_what_the_worker_of_that_host_said_of_itself(dead: Dead) -> None:
    with dead.database.write() as session:
        session.get_one(Host, "hv1").inventory_seconds = 600
    heard_ago(dead.database, 1_700)
    with pytest.raises(HostNotSilent) as refused:
        dead.forget()
    assert refused.value.facts["silence_s"] == 1_800


def test_a_host_that_nobody_has_heard_of_is_unknown(dead: Dead) -> None:
    with pytest.raises(HostUnknown):
        dead.forget("hv9")


# --- its jobs -------------------------------------------------------------------------------------


def test_a_job_that_ran_there_fails_with_what_nobody_has_looked_at(dead: Dead) -> None:
    claim = dead.running(phase="freeze", intent=FROZEN)
    dead.falls_silent()

    forgotten = dead.forget()

    job = job_of(dead.database, claim.job_id)
    assert (job.state, job.verdict, job.recovery_point, job.phase) == ("failed", "none", None, None)
    assert [reason["code"] for reason in job.verdict_reasons] == ["host_forgotten"]
    assert job.error is not None
    assert (job.error["code"], job.error["facts"]) == (
        "host_forgotten",
        {"host": "hv1", "phase": "freeze", "may_be_frozen": True, "files": ["/i/b"]},
    )
    assert job.phases[-1]["name"] == "recover"
    assert (job.finished_at is not None, job.lease_token) == (True, None)
    assert (forgotten.jobs_failed, forgotten.jobs_cancelled) == ([claim.job_id], 0)


def test_a_job_that_waited_for_recovery_fails_too_and_a_queued_one_is_cancelled(dead: Dead) -> None:
    waits = dead.running("db1")
    with dead.database.write() as session:
        queue.release_expired(session, "hv1", all_running=True)
    queued = add(dead.database, a_snapshot("db2", "hv1"))
    thaw = add(dead.database, a_thaw("db3", "hv1"))
    elsewhere = add(dead.database, a_snapshot("db4", "hv2"))
    dead.falls_silent()

    forgotten = dead.forget()

    assert job_of(dead.database, waits.job_id).state == "failed"
    for job_id in (queued, thaw):
        job = job_of(dead.database, job_id)
        assert (job.state, (job.error or {})["code"], (job.error or {})["facts"]["phase"]) == ("cancelled", "host_forgotten", None)
    assert job_of(dead.database, elsewhere).state == "queued"
    assert forgotten.jobs_cancelled == 2


def test_the_domain_can_be_snapshotted_where_it_is_now(dead: Dead) -> None:
    """A VM that was restarted on another host: the unique index knows no hosts."""
    dead.running("db1")
    dead.falls_silent()
    here = add(dead.database, a_snapshot("db1", "hv2"))
    assert try_to_claim(dead.database, "hv2") is None
    dead.forget()
    assert claimed(dead.database, "hv2").job_id == here


def test_nothing_is_left_of_the_host_but_its_jobs_and_points(dead: Dead) -> None:
    claim = dead.running(phase="freeze", intent=FROZEN)
    publish(dead.database, "hv1", claim.guest_id)
    publish(dead.database, "hv2", "id-of-db2", "db2")
    dead.falls_silent()

    assert dead.forget().domains == 1

    assert (dead.count(Host, Host.id == "hv1"), dead.count(Domain, Domain.host_id == "hv1")) == (0, 0)
    assert (dead.count(Slot, Slot.resource == "host:hv1:quick"), dead.count(Slot, Slot.job_id.is_not(None))) == (0, 0)
    assert (dead.count(Host), dead.count(Domain), dead.count(Slot)) == (1, 1, 4)
    with dead.database.read() as session:
        assert freeze_lease.open_windows(session) == []


def test_a_gate_of_the_host_is_closed_and_its_job_says_that_nothing_proves_the_hold(dead: Dead) -> None:
    job_ids = [add(dead.database, a_snapshot(name, "hv1", kind="quiesce")) for name in ("db1", "db2")]
    with dead.database.write() as session:
        for job_id in job_ids:
            gates.add(session, job_id, "token", 8_000)
    opened = claimed(dead.database, "hv1")
    with dead.database.write() as session:
        gates.try_to_open(session, opened.job_id, 1, timedelta(seconds=8))
        # As only a newer version understands it.
        session.get_one(Job, opened.job_id).request = {"freeze": {"mode": "gently"}}
    dead.falls_silent()

    dead.forget()

    job = job_of(dead.database, opened.job_id)
    assert (job.state, job.verdict, (job.error or {})["code"]) == ("failed", "crash", "host_forgotten")
    assert ((job.result or {})["held"], (job.result or {})["hold_budget_ms"]) == (False, 8_000)
    assert dead.count(Gate, Gate.state != "closed") == 0


def test_a_guest_that_runs_elsewhere_and_may_be_frozen_is_thawed_there(dead: Dead) -> None:
    claim = dead.running(phase="freeze", intent=FROZEN)
    publish(dead.database, "hv2", claim.guest_id)
    dead.falls_silent()

    dead.forget()

    with dead.database.read() as session:
        (thaw,) = session.scalars(select(Job).where(Job.kind == "thaw"))
    assert (thaw.host_id, thaw.domain_id, thaw.state) == ("hv2", claim.guest_id, "queued")
    assert thaw.id in job_of(dead.database, claim.job_id).phases[-1]["detail"]


def test_a_guest_that_nothing_was_sent_to_is_not_thawed_anywhere(dead: Dead) -> None:
    claim = dead.running(intent={"will_freeze": False, "overlays": []})
    publish(dead.database, "hv2", claim.guest_id)
    dead.falls_silent()
    dead.forget()
    assert dead.count(Job, Job.kind == "thaw") == 0


def test_a_guest_that_is_found_frozen_elsewhere_is_known_as_that_job_s(dead: Dead) -> None:
    claim = dead.running(phase="freeze", intent=FROZEN)
    dead.falls_silent()
    dead.forget()
    with dead.database.read() as session:
        looked_at = datetime.now(UTC) + timedelta(seconds=1)
        assert freeze_lease.freezer_of(session, claim.guest_id, thawed_at=None, looked_at=looked_at) == by_job(claim.job_id)


def test_a_worker_that_is_not_dead_after_all_cannot_write_to_the_job(dead: Dead) -> None:
    claim = dead.running(phase="freeze", intent=FROZEN)
    dead.falls_silent()
    dead.forget()
    with pytest.raises(LeaseLost), dead.database.write() as session:
        queue.write(session, claim.job_id, claim.lease_token, {"phase": "thaw"})
    assert job_of(dead.database, claim.job_id).state == "failed"


def test_a_job_that_was_created_while_its_host_was_forgotten_can_be_ended_too(dead: Dead) -> None:
    dead.falls_silent()
    dead.forget()
    late = add(dead.database, a_snapshot("db1", "hv1"))
    assert dead.forget().jobs_cancelled == 1
    assert job_of(dead.database, late).state == "cancelled"
    with pytest.raises(HostUnknown):
        dead.forget()


def test_the_first_report_after_a_rename_does_not_bring_the_old_name_back(dead: Dead) -> None:
    renamed = register(dead.database, "hv1-new")
    dead.falls_silent()
    dead.forget()
    with dead.database.write() as session:
        assert renamed.report(session)
    assert dead.count(Host, Host.id == "hv1") == 0
