"""Several hosts as processes of their own on one PostgreSQL: one worker for each host, a host that dies, a database that stands still."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from service.db.engine import Database, open_engine
from service.db.tables import Domain, Host, Job
from service.errors import HostNotSilent, HostTaken
from service.records import queue
from tests.postgresql_relay import PostgresqlRelay
from tests.scenes.orders import a_snapshot
from tests.service_process import ServiceProcess

LIBVIRT = "test:///default"
"""libvirt's own pretended host: it has a domain `test`, and no agent."""
QUICK = {"lease_seconds": "2", "inventory_seconds": "1", "poll_seconds": "0.1"}
SILENCE_S = 3.0
"""What follows from these."""
PATIENCE_S = 40.0


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    opened = Database(open_engine(postgres_url))
    yield opened
    opened.dispose()


@pytest.fixture
def worker(postgres_url: str, tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """Makes workers; those that still run at the end are stopped."""
    made: list[ServiceProcess] = []

    def make(name: str, host_id: str, **settings: str) -> ServiceProcess:
        given = {"database_url": postgres_url, **QUICK, **settings}
        process = ServiceProcess(tmp_path / name, libvirt_uri=LIBVIRT, host_id=host_id, command="worker", **given)
        made.append(process)
        return process.__enter__()

    yield make
    for process in made:
        process.stop()


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.02)


def instance(database: Database, host: str) -> str | None:
    with database.read() as session:
        return session.scalar(select(Host.instance_id).where(Host.id == host))


def publishes(database: Database, host: str) -> bool:
    with database.read() as session:
        return session.scalar(select(Domain.id).where(Domain.host_id == host).limit(1)) is not None


def forget(process: ServiceProcess, host: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "service.cli", "host", "forget", host]
    return subprocess.run(line, env=process.environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_second_worker_with_the_same_host_id_ends_with_the_reason(database: Database, worker: Callable[..., ServiceProcess]) -> None:
    worker("one", "hv1", lease_seconds="60")
    wait_for(lambda: publishes(database, "hv1"), "the first worker")
    first = instance(database, "hv1")
    second = worker("two", "hv1", lease_seconds="60")
    wait_for(second.has_ended, "the end of the second worker")
    assert HostTaken.title in second.log_text()
    assert instance(database, "hv1") == first


def test_a_worker_that_was_killed_starts_again_at_once_and_another_machine_must_wait(
    database: Database, worker: Callable[..., ServiceProcess]
) -> None:
    first = worker("one", "hv1", lease_seconds="60")
    wait_for(lambda: publishes(database, "hv1"), "the first worker")
    dead = instance(database, "hv1")
    first.kill()
    elsewhere = worker("two", "hv1", lease_seconds="60")
    wait_for(elsewhere.has_ended, "the refusal")
    assert instance(database, "hv1") == dead
    first.start()
    wait_for(lambda: instance(database, "hv1") != dead, "the first worker, started again", 20)


def test_a_host_that_died_with_a_job_is_forgotten_and_the_domain_can_be_used_elsewhere(
    database: Database, worker: Callable[..., ServiceProcess]
) -> None:
    dead, alive = worker("one", "hv1"), worker("two", "hv2")
    wait_for(lambda: publishes(database, "hv1") and publishes(database, "hv2"), "both hosts")
    with database.read() as session:
        domain_id, name = session.execute(select(Domain.id, Domain.name).where(Domain.host_id == "hv2")).one()
    dead.kill()
    with database.write() as session:
        lost = session.get_one(Job, queue.enqueue(session, a_snapshot(name, "hv1")).job_id)
        lost.domain_id, lost.state, lost.phase = domain_id, "running", "freeze"
        lost.lease_until = datetime.now(UTC) + timedelta(seconds=1)
        waits = session.get_one(Job, queue.enqueue(session, a_snapshot(name, "hv2", kind="preflight")).job_id)
        waits.domain_id = domain_id
        # The command may need longer than a short silence on a busy machine.
        session.get_one(Host, "hv1").inventory_seconds = 30
    early = forget(alive, "hv1")
    assert (early.returncode, HostNotSilent.title in early.stderr) == (1, True)

    with database.write() as session:
        session.get_one(Host, "hv1").inventory_seconds = 1
    wait_for(lambda: forget(alive, "hv1").returncode == 0, "the silence of the dead host")

    def state(job_id: str) -> str:
        with database.read() as session:
            return session.get_one(Job, job_id).state

    assert state(lost.id) == "failed"
    wait_for(lambda: state(waits.id) in ("succeeded", "failed"), "the job on the other host")
    assert instance(database, "hv1") is None
    assert forget(alive, "hv2").returncode == 1
    # It comes back after all.
    dead.start()
    wait_for(lambda: publishes(database, "hv1"), "the host that came back")


def test_a_network_that_swallows_everything_is_noticed_and_the_worker_goes_on_when_it_is_back(
    postgres_url: str, database: Database, worker: Callable[..., ServiceProcess], tmp_path: Path
) -> None:
    with PostgresqlRelay(postgres_url, tmp_path) as relay:
        process = worker("one", "hv1", database_url=relay.url)
        wait_for(lambda: publishes(database, "hv1"), "the worker")
        relay.mute_open_ones()
        with database.write() as session:
            job_id = queue.enqueue(session, a_snapshot("nowhere", "hv1", kind="preflight")).job_id

        def has_ended() -> bool:
            with database.read() as session:
                return session.get_one(Job, job_id).finished_at is not None

        # Every connection is found out within 20 s, also by the pool itself, which then makes a new one without a word.
        wait_for(has_ended, "the job that was asked for meanwhile", 60)
        assert process.stop() == 0
