"""A hook that never ends, on a real guest: the agent answers nobody, nothing is frozen, and the job says which of both it is."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.freeze import hung_hook
from service.freeze import window as freeze_window
from service.freeze.frozen_pass import PassSettings
from service.freeze.guard import NoGuards
from service.freeze.survey import survey_of
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.jobs.kind import Host
from service.jobs.run import JobRun
from service.jobs.snapshot import Snapshot
from service.records import queue
from service.records.queue import Claim, NewJob
from tests.lab.daemon import uri
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Hook

pytestmark = pytest.mark.live
Take = Callable[[LabGuest], Job]


@pytest.fixture
def take(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Take]:
    """A snapshot job, by a worker with little patience."""
    monkeypatch.setattr(freeze_window, "THAW_TIMEOUT_MS", 2_000)
    connection = HostConnection(uri())

    def take(lab_guest: LabGuest) -> Job:
        guest: Guest = connection.guest(lab_guest.name)
        request: dict[str, Any] = {"freeze": {"timeout_ms": 2_000, "preflush": False, "fuse": False}}
        new = NewJob(kind="snapshot", domain_id=guest.uuid, domain_name=guest.name, host_id="h", request=request, labels={})
        with sqlite_database.write() as session:
            queue.ensure_slots(session, "host:h:quick", 1)
            job_id = queue.enqueue(session, new).job_id
        with sqlite_database.write() as session:
            claim = queue.claim(session, "h", "h:1", 600)
        assert isinstance(claim, Claim)
        run = JobRun(claim, sqlite_database, threading.Event())
        host = Host(connection.guest, connection.guests, NoGuards(), connection)
        run.finish(Snapshot(PassSettings(thaw_patience_s=1.0)).run(run, host))
        with sqlite_database.read() as session:
            job = session.get(Job, job_id)
        assert job is not None
        return job

    yield take
    connection.close()


@pytest.mark.parametrize(("hook", "verdict", "outcome"), [("hang", "none", "unanswered"), ("hang_thaw", "crash", "frozen")])
def test_a_hook_that_does_not_end_is_told_from_a_frozen_guest(
    make_guest: MakeGuest, take: Take, hook: Hook, verdict: str, outcome: str
) -> None:
    lab_guest = make_guest(GuestOptions(hook=hook)).start_and_wait()

    job = take(lab_guest)

    assert job.error is not None
    assert (job.state, job.verdict, (job.freeze or {})["outcome"]) == ("failed", verdict, outcome)
    assert (job.error["code"], job.error["facts"]["disks"]) == ("guest_hook_hangs", "vda")
    assert job.error["facts"]["hook"] == "/etc/qemu/fsfreeze-hook"


def test_a_frozen_guest_writes_nothing_and_is_not_taken_for_one_with_a_hook_that_hangs(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hung_hook, "WATCH_S", 5.0)
    lab_guest = make_guest(GuestOptions(hook="ok")).start_and_wait()
    connection = HostConnection(uri())
    guest = connection.guest(lab_guest.name)
    found = survey_of(guest)

    lab_guest.domain.fsFreeze()
    while_frozen = hung_hook.disks_that_go_on(guest, found)
    lab_guest.domain.fsThaw()
    when_thawed = hung_hook.disks_that_go_on(guest, found)

    assert (while_frozen, when_thawed) == ((), ("vda",))
    connection.close()
