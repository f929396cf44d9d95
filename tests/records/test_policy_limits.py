"""Limits of policies: jobs beyond them wait in the queue, and let all others pass."""

import threading
from typing import Any

import pytest
from sqlalchemy import select, update

from service.clock import WallClock
from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Job, Slot
from service.jobs.run import JobRun
from service.model.backup_policy import Limits
from service.model.lifecycle import JobState
from service.model.origin import Origin
from service.model.timing import WindowInstants
from service.records import policy_limits, slots
from service.records.new_job import NewJob
from service.records.policy_limits import transfers_of, windows_of
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import add, claimed, everything_expires, finish, resolve, slots_in_use, try_to_claim
from tests.scenes.scheduled import Scheduled, for_databases, nightly

OF_GOLD = Origin("gold", "nightly").as_labels()


@pytest.fixture(autouse=True)
def _permits(database: Database) -> None:
    with database.write() as session:
        for host in ("hv1", "hv2"):
            slots.ensure_lanes(session, host, 8, 8)


def allow(database: Database, limits: Limits, policy: str = "gold", host: str = "hv1", repository: str | None = "r1") -> None:
    with database.write() as session:
        policy_limits.allow(session, policy, limits, host, repository)


def snapshot(domain: str, host: str = "hv1", policy: str | None = "gold") -> NewJob:
    return a_snapshot(domain, host, labels=Origin(policy, "nightly").as_labels() if policy is not None else {})


def backup(domain: str, repository: str = "r1", policy: str | None = "gold") -> NewJob:
    request: dict[str, Any] = {"kind": "backup", "domain": domain, "repository": repository}
    labels = Origin(policy, "nightly").as_labels() if policy is not None else {}
    return NewJob("backup", f"id-of-{domain}", domain, "hv1", request, labels, repository_id=repository)


def test_a_policy_has_only_so_many_guests_in_the_window_on_a_host(database: Database) -> None:
    allow(database, Limits(guests_in_window_per_host=1))
    first = add(database, snapshot("a"))
    waiting = add(database, snapshot("b"))
    others = [add(database, snapshot("c", policy="silver")), add(database, snapshot("d", policy=None))]
    elsewhere = add(database, snapshot("e", "hv2"))
    claim = claimed(database)
    assert claim.job_id == first
    assert [claimed(database).job_id for _ in others] == others
    assert try_to_claim(database) is None
    assert claimed(database, "hv2").job_id == elsewhere
    finish(database, claim)
    assert claimed(database).job_id == waiting


def test_a_policy_has_only_so_many_transfers_into_a_repository(database: Database) -> None:
    allow(database, Limits(transfers_per_repository=2))
    running = [add(database, backup("a")), add(database, backup("b"))]
    waiting = add(database, backup("c"))
    others = [add(database, backup("d", "r2")), add(database, backup("e", policy=None)), add(database, snapshot("f"))]
    claims = [claimed(database) for _ in range(5)]
    assert [claim.job_id for claim in claims] == [*running, *others]
    assert try_to_claim(database) is None
    finish(database, claims[1])
    assert claimed(database).job_id == waiting


def run_of(database: Database) -> JobRun:
    return JobRun(claimed(database), database, threading.Event())


def test_the_permit_of_a_window_comes_back_when_the_guest_is_thawed_and_not_when_the_copy_has_ended(database: Database) -> None:
    allow(database, Limits(guests_in_window_per_host=1))
    add(database, backup("a"))
    waiting = add(database, backup("b"))
    run = run_of(database)
    assert try_to_claim(database) is None
    run.add_window_phases(WindowInstants(), {}, WallClock())
    run.write({})
    assert windows_of("gold", "hv1") not in slots_in_use(database)
    assert claimed(database).job_id == waiting


def test_an_attempt_that_only_copies_what_an_earlier_one_took_needs_no_window(database: Database) -> None:
    allow(database, Limits(guests_in_window_per_host=1))
    first = add(database, backup("a"))
    second = add(database, backup("b"))
    claimed(database)
    everything_expires(database)
    with database.write() as session:
        session.execute(update(table_of(Job)).where(Job.id == first).values(phases=[{"name": "thaw"}]))
    resolve(database, first, JobState.queued)
    assert {claimed(database).job_id, claimed(database).job_id} == {first, second}


def test_a_permit_of_a_policy_comes_back_when_its_worker_dies(database: Database) -> None:
    allow(database, Limits(guests_in_window_per_host=1, transfers_per_repository=1))
    add(database, backup("a"))
    claimed(database)
    everything_expires(database)
    assert slots_in_use(database) == {}


def test_workers_that_claim_at_once_do_not_exceed_a_limit(database: Database) -> None:
    allow(database, Limits(guests_in_window_per_host=3))
    for n in range(8):
        add(database, snapshot(f"db{n}"))
    threads = [threading.Thread(target=try_to_claim, args=(database,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while try_to_claim(database) is not None:
        pass
    assert len(slots_in_use(database)[windows_of("gold", "hv1")]) == 3


def permits(database: Database) -> dict[str, int]:
    with database.read() as session:
        resources = list(session.scalars(select(Slot.resource).where(Slot.resource.startswith(slots.POLICY))))
    return {resource: resources.count(resource) for resource in resources}


def test_the_jobs_of_a_schedule_have_the_limits_of_their_policy_as_it_is_now(database: Database) -> None:
    scene = Scheduled(database)
    scene.domains(3)
    repository = scene.repository()
    job = {"kind": "backup", "repository": "main"}

    def limited(**limits: int | None) -> None:
        scene.policy(for_databases(nightly(job=job), limits=limits))

    limited(guests_in_window_per_host=2, transfers_per_repository=1)
    scene.at("15 02:00")
    windows, transfers = windows_of("production", "hv1"), transfers_of("production", repository)
    assert permits(database) == {windows: 2, transfers: 1}
    claim = claimed(database)
    assert try_to_claim(database) is None
    limited(guests_in_window_per_host=5)
    scene.later(seconds=1)
    assert permits(database) == {windows: 5}
    claimed(database)
    finish(database, claim)
    scene.remove_policy()
    scene.later(seconds=1)
    assert permits(database) == {}
    claimed(database)
