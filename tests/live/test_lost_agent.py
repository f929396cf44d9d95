"""libvirt loses the agent of a real guest: the job says so soon, and what is seen from outside is told; the guest is thawed by its fuse."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import AgentAnswerUnreadable, AgentLost, LibvirtCallFailed
from service.hypervisor.connection import HostConnection
from tests.chaos.lying_agent import Lie, LyingAgent
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.lab.refused_agent import start_again_if_refused
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"
FUSE_DUE_SOON = {"timeout_ms": 1_000, "hold_limit_ms": 2_000}
FUSE_DUE_LATE = {"timeout_ms": 120_000, "hold_limit_ms": 5_000}
SOON_S = 45.0
"""An agent that is silent is waited for 600 s."""


@pytest.fixture
def liar(lab_guest: LabGuest) -> LyingAgent:
    """Between libvirt and the real agent; a line that is not JSON makes libvirt take the agent for broken."""
    return LyingAgent(lab_guest, lambda _: None).start()


@pytest.fixture
def service(lab_guest: LabGuest, tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "state", libvirt_uri=uri()) as process:
        yield process


def test_an_agent_that_libvirt_takes_for_broken_is_lost_until_it_is_restarted(lab_guest: LabGuest, liar: LyingAgent) -> None:
    connection = HostConnection(uri())
    guest = connection.guest(lab_guest.name)
    liar.restart_later(5)
    liar.tell(Lie.GARBAGE, "guest-get-time", 1)
    # libvirt 9.0 quotes what the guest said, 11.3 says only that it is not JSON.
    with pytest.raises((AgentAnswerUnreadable, LibvirtCallFailed)):
        guest.agent("guest-get-time")
    with pytest.raises(AgentLost):
        guest.ping()
    lab_guest.wait_agent()
    guest.ping()
    connection.close()


def test_a_guest_whose_agent_libvirt_refuses_is_started_once_more(lab_guest: LabGuest, liar: LyingAgent) -> None:
    notes: list[str] = []
    start_again_if_refused(lab_guest, lambda: None, notes.append)
    assert notes == [], "a guest whose agent answers was started again"

    liar.tell(Lie.GARBAGE, "guest-get-time", 1)
    connection = HostConnection(uri())
    with pytest.raises((AgentAnswerUnreadable, LibvirtCallFailed)):
        connection.guest(lab_guest.name).agent("guest-get-time")
    connection.close()
    start_again_if_refused(lab_guest, lambda: _start(lab_guest), notes.append)
    lab_guest.wait_agent()
    assert len(notes) == 1


def test_a_freeze_whose_thaw_never_reaches_the_agent_ends_by_the_fuse_and_the_job_has_seen_it(
    lab_guest: LabGuest, liar: LyingAgent, service: ServiceProcess
) -> None:
    # The guest freezes, and its answer jams libvirt: the thaw is never sent.
    liar.tell(Lie.GARBAGE, FREEZE, 1)
    mark = lab_guest.mark()
    job = service.wait(service.create(lab_guest.name, freeze=FUSE_DUE_SOON), SOON_S)
    assert (job["state"], job["error"]["code"]) == ("failed", "thaw_unanswered")
    assert (job["freeze"]["fuse"]["state"], job["verdict"]) == ("fired", "none")
    lab_guest.console.wait_heartbeat(60)
    assert lab_guest.console.stalls(mark), "the guest was never frozen, so nothing was shown"


def test_a_job_tells_of_a_guest_that_stays_frozen_long_before_its_fuse_is_due(
    lab_guest: LabGuest, liar: LyingAgent, service: ServiceProcess
) -> None:
    liar.tell(Lie.GARBAGE, FREEZE, 1)
    job = service.wait(service.create(lab_guest.name, freeze=FUSE_DUE_LATE), SOON_S)
    assert (job["state"], job["error"]["code"]) == ("failed", "guest_still_frozen")
    assert job["freeze"]["fuse"]["state"] == "armed"
    lab_guest.domain.reset(0)


def test_a_thaw_that_is_executed_and_whose_answer_is_lost_leaves_a_guest_that_is_seen_to_write(
    lab_guest: LabGuest, liar: LyingAgent, service: ServiceProcess
) -> None:
    liar.tell(Lie.GARBAGE, THAW, 1)
    job = service.wait(service.create(lab_guest.name, freeze=FUSE_DUE_LATE), SOON_S)
    assert (job["state"], job["error"]["code"]) == ("failed", "thaw_unanswered")
    assert (job["verdict"], job["recovery_point"]["verdict"]) == ("crash", "crash")


def _start(guest: LabGuest) -> None:
    guest.start()
