"""Locks and permits as data: what each kind locks, and that jobs of one lane never wait for those of another."""

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Job
from service.model.kinds import KINDS, JobKind, Lane, Locks
from service.model.lifecycle import JobState
from service.records import slots
from service.records.new_job import NewJob
from tests.scenes.kinds import add_kind
from tests.scenes.orders import a_snapshot, a_thaw
from tests.scenes.queue import add, allow, claimed, everything_expires, finish, job_of, resolve, slots_in_use, try_to_claim

HOST = "hv1"
TRANSFERS_OF_HOST = 4


@pytest.fixture(autouse=True)
def _kinds_of_the_other_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which do not exist yet: a copy of a domain, a copy that needs no lock, a check of a point, and what tidies a repository."""
    add_kind(monkeypatch, "copy", Lane.transfer, Locks.domain)
    add_kind(monkeypatch, "export", Lane.transfer, Locks.nothing)
    add_kind(monkeypatch, "check", Lane.quick, Locks.point)
    add_kind(monkeypatch, "tidy", Lane.maintenance, Locks.repository)


@pytest.fixture(autouse=True)
def _permits(database: Database) -> None:
    with database.write() as session:
        slots.ensure_lanes(session, HOST, 2, TRANSFERS_OF_HOST)


def a_job(kind: str, *, domain: str | None = None, point: str | None = None, repository: str | None = None) -> NewJob:
    domain_id = f"id-of-{domain}" if domain is not None else None
    request = {"kind": kind, "domain": domain}
    return NewJob(kind, domain_id, domain, HOST, request, {}, point_id=point, repository_id=repository)


# --- lanes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["snapshot", "preflight", "quiesce", "thaw"])
def test_transfers_that_run_for_hours_keep_nothing_else_waiting(database: Database, kind: str) -> None:
    for number in range(TRANSFERS_OF_HOST + 1):
        add(database, a_job("copy", domain=f"big{number}"))
    running = [claimed(database).job_id for _ in range(TRANSFERS_OF_HOST)]
    assert try_to_claim(database) is None, "the transfer after them waits"
    wanted = add(database, a_snapshot("db1", kind=kind))
    assert claimed(database).job_id == wanted
    assert slots_in_use(database)[f"host:{HOST}:transfer"] == sorted(running, key=running.index)


def test_a_transfer_that_waits_for_a_permit_does_not_stop_the_snapshot_behind_it(database: Database) -> None:
    for number in range(TRANSFERS_OF_HOST):
        add(database, a_job("copy", domain=f"big{number}"))
        claimed(database)
    add(database, a_job("copy", domain="db1"))
    snapshot = add(database, a_snapshot("db1"))
    assert claimed(database).job_id == snapshot


def test_snapshots_keep_no_transfer_waiting(database: Database) -> None:
    for name in ("a", "b", "c"):
        add(database, a_snapshot(name))
    claimed(database), claimed(database)
    copy = add(database, a_job("copy", domain="d"))
    assert claimed(database).job_id == copy
    assert try_to_claim(database) is None


def test_a_permit_comes_back_when_its_job_ends_or_is_lost(database: Database) -> None:
    for number in range(TRANSFERS_OF_HOST + 1):
        add(database, a_job("copy", domain=f"big{number}"))
    claims = [claimed(database) for _ in range(TRANSFERS_OF_HOST)]
    finish(database, claims[0])
    assert claimed(database).domain_name == f"big{TRANSFERS_OF_HOST}"
    everything_expires(database)
    assert slots_in_use(database) == {}


def test_the_one_that_is_due_for_longest_comes_first_with_and_without_a_lock(database: Database) -> None:
    wanted = [add(database, a_job("export")), add(database, a_snapshot("a")), add(database, a_job("export"))]
    assert [claimed(database).job_id for _ in wanted] == wanted


# --- repositories ---------------------------------------------------------------------------------


def test_a_repository_lets_only_so_many_jobs_of_a_lane_through(database: Database) -> None:
    allow(database, "repository:r1:transfer", 1)
    first = add(database, a_job("copy", domain="a", repository="r1"))
    add(database, a_job("copy", domain="b", repository="r1"))
    elsewhere = add(database, a_job("copy", domain="c", repository="r2"))
    assert [claimed(database).job_id for _ in range(2)] == [first, elsewhere]
    assert try_to_claim(database) is None
    tidying = add(database, a_job("tidy", repository="r1"))
    assert claimed(database).job_id == tidying, "another lane"
    assert slots_in_use(database)["repository:r1:transfer"] == [first]


def test_a_full_repository_does_not_stop_the_snapshot_behind_its_transfer(database: Database) -> None:
    allow(database, "repository:r1:transfer", 0)
    allow(database, "repository:r1:transfer", 1)
    add(database, a_job("copy", domain="a", repository="r1"))
    claimed(database)
    add(database, a_job("copy", domain="db1", repository="r1"))
    add(database, a_job("export", repository="r1"))
    snapshot = add(database, a_snapshot("db1"))
    assert claimed(database).job_id == snapshot
    assert try_to_claim(database) is None


# --- locks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "key"),
    [
        (a_snapshot("db1"), "domain:id-of-db1"),
        (a_thaw("db1"), None),
        (a_job("copy", domain="db1", repository="r1"), "domain:id-of-db1"),
        (a_job("check", point="p1", repository="r1"), "point:p1"),
        (a_job("tidy", repository="r1"), "repository:r1"),
        (a_job("export", domain="db1"), None),
    ],
    ids=lambda value: value.kind if isinstance(value, NewJob) else str(value),
)
def test_a_job_locks_what_the_table_of_kinds_says(database: Database, job: NewJob, key: str | None) -> None:
    assert job_of(database, add(database, job)).lock_key == key


def test_a_job_that_does_not_name_what_it_locks_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="repository"):
        add(database, a_job("tidy"))


def test_a_lock_is_held_by_one_job_at_a_time(database: Database) -> None:
    first, second = add(database, a_job("tidy", repository="r1")), add(database, a_job("tidy", repository="r1"))
    assert claimed(database).job_id == first
    assert try_to_claim(database) is None
    everything_expires(database)
    assert try_to_claim(database) is None, "recovery has not looked yet"
    resolve(database, first, JobState.failed)
    assert claimed(database).job_id == second


def test_the_database_itself_refuses_a_second_holder_of_a_lock(database: Database) -> None:
    add(database, a_job("tidy", repository="r1")), add(database, a_job("tidy", repository="r1"))
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(update(table_of(Job)).values(state="running"))


def test_a_job_may_be_about_no_domain(database: Database) -> None:
    add(database, a_job("tidy", repository="r1"))
    claim = claimed(database)
    assert (claim.domain_id, claim.domain_name) == (None, None)
    with pytest.raises(ValueError, match="domain"):
        _ = claim.guest_id


def test_every_kind_says_what_it_locks_and_where_it_waits() -> None:
    urgent = {kind.name for kind in KINDS.values() if kind.is_urgent}
    assert urgent == {JobKind.thaw}
    assert all(kind.locks is Locks.domain for kind in KINDS.values() if kind.freezes)
