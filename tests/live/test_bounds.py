"""A libvirt that hangs, and an agent that somebody else has, on real guests: every call ends in time, and nothing stays frozen."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.errors import AgentBusy, LibvirtCallTimedOut, LibvirtUnavailable
from service.freeze import window as freeze_window
from service.freeze.guard import Unguarded
from service.freeze.window import WindowPlan, thaw_until_answered
from service.hypervisor.bounded_domain import Bounds
from service.hypervisor.connection import HostConnection
from service.model.window import FreezeOutcome, ThawOutcome
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.libvirt_relay import LibvirtRelay
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

ON_A_BUSY_MACHINE_S = 12.0
"""Seconds for what has a limit of one. By default the shortest limit of a call is 15 s."""
SHORT = Bounds(open_s=1, close_s=0.5, read_s=1, query_s=1, agent_margin_s=1, snapshot_s=1, block_job_s=1)


@pytest.fixture
def connection(relay: LibvirtRelay) -> Iterator[HostConnection]:
    """Through the relay, with bounds of a second."""
    opened = HostConnection(relay.uri, SHORT)
    yield opened
    opened.close()


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_a_mute_libvirt_ends_every_call_in_time_and_another_way_to_libvirt_goes_on(
    relay: LibvirtRelay, connection: HostConnection, shared_guest: LabGuest
) -> None:
    guest = connection.guest(shared_guest.name)
    relay.is_mute = True

    def call() -> None:
        with pytest.raises(LibvirtCallTimedOut, match=rf"virDomainGetState on {shared_guest.name}"):
            guest.state()

    def connect() -> None:
        with pytest.raises(LibvirtUnavailable, match="virConnectOpen was given up"):
            connection.versions()

    assert 0.9 < seconds(call) < ON_A_BUSY_MACHINE_S
    assert seconds(connect) < ON_A_BUSY_MACHINE_S
    other = HostConnection(uri())
    assert other.guest(shared_guest.name).is_frozen() is False
    other.close()
    assert seconds(connection.close) < ON_A_BUSY_MACHINE_S


def test_a_guest_goes_on_over_a_new_connection_when_the_old_one_hangs(
    relay: LibvirtRelay, connection: HostConnection, shared_guest: LabGuest
) -> None:
    guest = connection.guest(shared_guest.name)
    relay.mute_open_ones()
    with pytest.raises(LibvirtCallTimedOut):
        guest.state()
    assert guest.is_frozen() is False


def test_a_thaw_that_hangs_is_sent_again_over_a_new_connection(
    relay: LibvirtRelay, connection: HostConnection, shared_guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze_window, "THAW_TIMEOUT_MS", 1_000)
    guest = connection.guest(shared_guest.name)
    count = guest.freeze(None, 5_000)
    relay.mute_open_ones()

    reply = thaw_until_answered(guest, count, patience_s=30)

    assert (reply.outcome, reply.attempts) == (ThawOutcome.completed, 2)
    assert shared_guest.freeze_status() == "thawed"


def test_a_snapshot_call_that_hangs_does_not_keep_the_guest_frozen(
    relay: LibvirtRelay, connection: HostConnection, shared_guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze_window, "THAW_TIMEOUT_MS", 1_000)
    guest = connection.guest(shared_guest.name)

    def take(_hold: freeze_window.Hold) -> None:
        relay.mute_open_ones()
        guest.state()

    began = shared_guest.mark()
    record = freeze_window.run(guest, take, WindowPlan(None, freeze_timeout_ms=5_000, hold_limit_ms=500), Unguarded())

    assert record.freeze.outcome is FreezeOutcome.frozen
    assert record.watchdog_fired
    assert "virDomainGetState" in (record.point_error or "")
    assert record.thaw.outcome is ThawOutcome.completed
    assert shared_guest.freeze_status() == "thawed"
    assert max(stall.ms for stall in shared_guest.stalls(since=began)) < 5_000


def test_an_agent_that_another_client_has_is_seen_before_the_freeze(lab_guest: LabGuest) -> None:
    """The agent is stopped while another client waits for it: that client holds libvirt's lock until it is answered."""
    connection = HostConnection(uri())
    guest = connection.guest(lab_guest.name)
    guest.require_idle_agent(within_ms=2_000)
    pause = "(sleep 0.5; kill -STOP $PPID; sleep 9; kill -CONT $PPID) </dev/null >/dev/null 2>&1 &"
    lab_guest.agent({"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", pause]}})
    time.sleep(1.0)
    other = threading.Thread(target=lab_guest.agent, args=({"execute": "guest-ping"},))
    other.start()
    time.sleep(0.3)

    def check() -> None:
        with pytest.raises(AgentBusy):
            guest.require_idle_agent(within_ms=1_000)

    assert 0.9 < seconds(check) < 8
    other.join()
    lab_guest.wait_agent(30)
    assert lab_guest.freeze_status() == "thawed"
    guest.require_idle_agent(within_ms=5_000)
    connection.close()


def test_a_service_whose_libvirt_hangs_ends_in_its_stated_time(relay: LibvirtRelay, lab_guest: LabGuest, tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "state", libvirt_uri=relay.uri, shutdown_seconds="2") as service:
        service.run(lab_guest.name, kind="preflight")
        relay.is_mute = True
        service.create(lab_guest.name)
        time.sleep(1)
        began = time.monotonic()
        assert service.stop() == 0
        # Two for the job, five for the worker's loops, two for the connection; the calls alone would hang for 15 s each.
        assert time.monotonic() - began < 30
