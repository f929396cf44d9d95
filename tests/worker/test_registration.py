"""A host has one worker: the database refuses a second one, and lets in at once whoever can prove that the first is dead."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Host
from service.errors import HostTaken, WorkerAlreadyRuns
from service.worker.host_lock import HostLock, LockId
from service.worker.registration import Registration
from tests.scenes.queue import run_together
from tests.scenes.registered_hosts import SILENCE_S, a_lock, a_registration, heard_ago, register


def takes(database: Database, registration: Registration, lock: LockId) -> bool:
    try:
        with database.write() as session:
            registration.take(session, lock)
    except HostTaken:
        return False
    return True


def holds(database: Database, registration: Registration) -> bool:
    with database.read() as session:
        return registration.holds(session)


def test_a_second_worker_of_a_host_is_refused_and_told_who_has_it(database: Database) -> None:
    first = register(database, lock=a_lock("one"))
    heard_ago(database, 20)
    with pytest.raises(HostTaken) as refused, database.write() as session:
        a_registration().take(session, a_lock("two"))
    facts = refused.value.facts
    assert facts["host"] == "hv1"
    assert "process" in facts["held_by"]
    assert 19 < facts["seen_ago_s"] < 25
    assert SILENCE_S - 25 < facts["free_in_s"] < SILENCE_S - 19
    assert holds(database, first)


def test_a_host_whose_worker_was_silent_for_longer_than_its_leases_last_is_taken_over(database: Database) -> None:
    first = register(database, lock=a_lock("one"))
    second = a_registration()
    heard_ago(database, SILENCE_S - 5)
    assert not takes(database, second, a_lock("two"))
    heard_ago(database, SILENCE_S + 5)
    assert takes(database, second, a_lock("two"))
    assert (holds(database, first), holds(database, second)) == (False, True)
    with database.write() as session:
        assert not first.report(session)


def test_what_counts_as_silence_is_what_the_worker_before_said_of_itself(database: Database) -> None:
    with database.write() as session:
        a_registration(lease_seconds=600).take(session, a_lock("one"))
    heard_ago(database, 500)
    assert not takes(database, a_registration(lease_seconds=1, inventory_seconds=1), a_lock("two"))


def test_whoever_holds_the_lock_file_of_the_dead_worker_takes_over_at_once(database: Database) -> None:
    register(database, lock=a_lock())
    assert takes(database, a_registration(), a_lock())


@pytest.mark.parametrize("copy", [{"inode": "1:2"}, {"file": "another"}, {"boot": "another"}], ids=["copied", "another", "other machine"])
def test_a_lock_file_that_is_not_the_very_same_proves_nothing(database: Database, copy: dict[str, str]) -> None:
    register(database, lock=a_lock())
    assert not takes(database, a_registration(), a_lock(**copy))


def test_without_a_boot_id_nothing_is_proved(database: Database) -> None:
    register(database, lock=a_lock(boot=""))
    assert not takes(database, a_registration(), a_lock(boot=""))


def test_a_machine_that_was_rebooted_waits_for_a_few_reports_and_not_for_its_leases(database: Database) -> None:
    """It may be a copy of a machine that still runs: that one would report meanwhile."""
    register(database, lock=a_lock())
    heard_ago(database, 10)
    assert not takes(database, a_registration(), a_lock(boot="next-boot"))
    heard_ago(database, 20)
    assert takes(database, a_registration(), a_lock(boot="next-boot"))


def test_a_worker_that_was_stopped_leaves_the_host_to_whoever_comes(database: Database) -> None:
    first = register(database, lock=a_lock("one"))
    with database.write() as session:
        first.release(session)
    assert takes(database, a_registration(), a_lock("two"))


def test_a_worker_that_was_replaced_gives_nothing_away_when_it_stops(database: Database) -> None:
    first = register(database, lock=a_lock("one"))
    heard_ago(database, SILENCE_S + 5)
    second = register(database, lock=a_lock("two"))
    with database.write() as session:
        first.release(session)
    assert holds(database, second)


@pytest.mark.parametrize("host", ["hv1", "hv2", "hv3"])
def test_of_two_workers_that_start_at_once_one_is_refused(database: Database, host: str) -> None:
    """On a host that nobody has heard of yet, where there is no row to lock."""
    together = threading.Barrier(2)
    taken: list[bool] = []

    def start(name: str) -> None:
        registration = a_registration(host)
        together.wait()
        taken.append(takes(database, registration, a_lock(name)))

    run_together([partial(start, "one"), partial(start, "two")])
    assert sorted(taken) == [False, True]


def test_the_host_is_known_before_libvirt_was_asked(database: Database) -> None:
    register(database)
    with database.read() as session:
        host = session.get_one(Host, "hv1")
    assert (host.libvirt_connected, host.inventory_at, host.lease_seconds, host.inventory_seconds) == (False, None, 60, 30)


# --- the lock file --------------------------------------------------------------------------------


@pytest.fixture
def locks() -> Iterator[list[HostLock]]:
    """Released at the end."""
    taken: list[HostLock] = []
    yield taken
    for lock in taken:
        lock.release()


def locked(locks: list[HostLock], folder: Path) -> LockId:
    locks.append(HostLock(folder, "hv1"))
    return locks[-1].take()


def test_the_same_lock_file_is_known_again_and_a_copy_of_the_folder_is_not(tmp_path: Path, locks: list[HostLock]) -> None:
    identity = locked(locks, tmp_path)
    with pytest.raises(WorkerAlreadyRuns):
        locked(locks, tmp_path)
    locks[0].release()
    again = locked(locks, tmp_path)
    assert again == identity
    assert again.proves_death_of(LockId.read(str(identity)))
    copied = tmp_path / "copy"
    copied.mkdir()
    (copied / "worker-hv1.lock").write_bytes((tmp_path / "worker-hv1.lock").read_bytes())
    copy = locked(locks, copied)
    assert (copy.file, copy.proves_death_of(identity)) == (identity.file, False)


def test_a_lock_file_of_an_earlier_version_is_empty_and_gets_a_name(tmp_path: Path, locks: list[HostLock]) -> None:
    (tmp_path / "worker-hv1.lock").touch()
    name = locked(locks, tmp_path).file
    locks[0].release()
    assert locked(locks, tmp_path).file == name != ""
