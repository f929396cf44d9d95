"""What the service knows of its host, while a guest on it answers nothing."""

import time

import libvirt
import pytest

from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

KNOWN_WITHIN_S = 2.0
TRIES = 4


def wait_until_hung(guest: LabGuest) -> None:
    with pytest.raises(libvirt.libvirtError):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            guest.agent({"execute": "guest-ping"}, timeout=1)


def test_a_domain_is_known_within_two_seconds_while_the_agent_of_another_hangs(service: ServiceProcess, make_guest: MakeGuest) -> None:
    hung = make_guest(GuestOptions()).start_and_wait()
    # The parent of what the agent executes is the agent.
    hung.exec("/bin/sh", "-c", "(sleep 0.2; kill -STOP $PPID) </dev/null >/dev/null 2>&1 &")
    wait_until_hung(hung)

    # A machine that is busy may be late with one of them.
    assert any(seconds_until_known(service, make_guest(GuestOptions()).define()) < KNOWN_WITHIN_S for _ in range(TRIES))


def seconds_until_known(service: ServiceProcess, new: LabGuest) -> float:
    defined = time.monotonic()
    while service.request("GET", f"/api/v1/domains/{new.name}").status_code == 404:
        assert time.monotonic() - defined < 60
        time.sleep(0.02)
    return time.monotonic() - defined
