"""PostgreSQL is stopped, killed and filled up while a guest is frozen: the guest is thawed in time and its job tells the truth."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.invariants import AFTER_DEADLINE_MS
from tests.databases import migrate
from tests.lab.guests import LabGuest
from tests.libvirt_relay import LibvirtRelay
from tests.live.test_libvirt_goes_away import wait_until_frozen
from tests.process.postgresql_server import PostgresqlServer
from tests.service_process import FINAL, ServiceProcess

pytestmark = pytest.mark.live

HOLD_MS = 1_500
AWAY_S = 2.5
FELT_S = 30.0
SLOW_S = 0.15
"""Each answer of libvirt: the window stays open for long enough to strike inside it."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as server:
        migrate(server.url)
        yield server


@pytest.fixture(scope="module")
def relay(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtRelay]:
    relay = LibvirtRelay(tmp_path_factory.mktemp("relay")).open()
    yield relay
    relay.close()


@pytest.fixture(scope="module")
def service(server: PostgresqlServer, relay: LibvirtRelay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("service")
    with ServiceProcess(folder, libvirt_uri=relay.uri, database_url=server.url, poll_seconds="0.2", inventory_seconds="2") as process:
        yield process


@pytest.fixture
def struck(service: ServiceProcess, server: PostgresqlServer, relay: LibvirtRelay, module_guest: LabGuest) -> Iterator["Struck"]:
    with ExitStack() as stack:
        stack.callback(module_guest.thaw_for_sure)
        stack.callback(server.revive)
        yield Struck(service, server, relay, module_guest)


class Struck:
    """A job that is inside its window when the test strikes."""

    def __init__(self, service: ServiceProcess, server: PostgresqlServer, relay: LibvirtRelay, guest: LabGuest) -> None:
        self.service, self.server, self.relay, self.guest = service, server, relay, guest

    def begin(self) -> str:
        self.service.run(self.guest.name, kind="preflight")
        self._told_before = len(self.service.log_text())
        self.before = self.guest.active_sources()["vda"]
        self.mark = self.guest.mark()
        self.relay.delay_s = SLOW_S
        job_id = self.service.create(self.guest.name, freeze={"preflush": False, "hold_limit_ms": HOLD_MS})
        wait_until_frozen(self.guest)
        self.relay.delay_s = SLOW_S / 3
        return job_id

    def is_felt(self) -> None:
        """Return once the service has met the fault. A database that is back before anybody asked for it tests nothing."""
        deadline = time.monotonic() + FELT_S
        while "database_away" not in self.service.log_text()[self._told_before :]:
            assert time.monotonic() < deadline, "the fault was not felt: the test tested nothing"
            time.sleep(0.02)

    def end(self, job_id: str) -> dict[str, Any]:
        """The job in its final state. What is asked first is the guest's own meter, while the database may still be away."""
        self.relay.delay_s = 0
        assert max(stall.ms for stall in self.guest.stalls(self.mark)) < HOLD_MS + AFTER_DEADLINE_MS
        assert self.guest.freeze_status() == "thawed"
        self.server.revive()
        return self._final(job_id)

    def is_told_truly(self, job: dict[str, Any]) -> None:
        now = self.guest.active_sources()["vda"]
        assert (job["state"] == "failed") == (job["error"] is not None)
        assert (job["recovery_point"] is not None) == (now != self.before)
        if job["recovery_point"] is not None:
            disk = job["recovery_point"]["disks"][0]
            assert (Path(disk["file"]), Path(disk["overlay"])) == (self.before, now)
        assert (job["state"], job["verdict"]) in (("succeeded", "filesystem"), ("failed", "crash"), ("failed", "none"))
        following = self.service.run(self.guest.name)
        assert (following["state"], following["verdict"]) == ("succeeded", "filesystem"), following["error"]

    def _final(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            # The API answers 503 until its connections are made anew.
            answer = self.service.request("GET", f"/api/v1/jobs/{job_id}")
            document: dict[str, Any] = answer.json()
            if answer.status_code == 200 and document["state"] in FINAL:
                return document
            assert time.monotonic() < deadline, f"{answer.status_code}: {answer.text}\n{self.service.log_text()[-3000:]}"
            time.sleep(0.05)


def test_postgresql_restarted_inside_the_window_costs_the_job_nothing(struck: Struck) -> None:
    job_id = struck.begin()
    struck.server.stop()
    struck.is_felt()
    struck.server.start()

    job = struck.end(job_id)

    assert (job["state"], job["verdict"], job["attempt"]) == ("succeeded", "filesystem", 1)
    struck.is_told_truly(job)


def test_postgresql_stopped_past_the_deadline_does_not_keep_the_guest_frozen(struck: Struck) -> None:
    job_id = struck.begin()
    struck.server.stop()
    time.sleep(AWAY_S)
    struck.is_felt()
    assert struck.service.request("GET", f"/api/v1/jobs/{job_id}").status_code == 503

    job = struck.end(job_id)

    assert (job["state"], job["verdict"], job["attempt"]) == ("succeeded", "filesystem", 1)
    struck.is_told_truly(job)


def test_postgresql_killed_inside_the_window_and_started_again(struck: Struck) -> None:
    job_id = struck.begin()
    struck.server.kill()
    time.sleep(AWAY_S)
    struck.is_felt()

    job = struck.end(job_id)

    assert (job["state"], job["verdict"], job["attempt"]) == ("succeeded", "filesystem", 1)
    struck.is_told_truly(job)


def test_a_full_disk_of_postgresql_is_waited_out(struck: Struck) -> None:
    if not struck.server.is_on_small_disk:
        pytest.skip("only root can mount a small disk")
    job_id = struck.begin()
    struck.server.fill()
    time.sleep(AWAY_S)
    struck.is_felt()

    job = struck.end(job_id)

    assert (job["state"], job["verdict"], job["attempt"]) == ("succeeded", "filesystem", 1)
    struck.is_told_truly(job)
