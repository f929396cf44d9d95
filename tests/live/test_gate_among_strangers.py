"""A gate on a real guest is opened and released while more strangers are connected than the service may open files."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.live.test_gates import open_gate, release
from tests.process.test_strangers import FILES, STRANGERS, connect, enough_files_for_the_test
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.live, pytest.mark.usefixtures(enough_files_for_the_test.__name__)]

__all__ = ["enough_files_for_the_test"]


def test_a_gate_is_released_while_strangers_hold_every_connection(lab_guest: LabGuest, tmp_path: Path) -> None:
    limited = ("prlimit", f"--nofile={FILES}:{FILES}")
    with ServiceProcess(tmp_path / "state", libvirt_uri=uri(), inside=limited) as service, ExitStack() as stack:
        service.create(lab_guest.name, kind="preflight")
        for _ in range(STRANGERS):
            connect(stack, service)
        gate = open_gate(service, lab_guest.name, 20_000)
        for _ in range(STRANGERS):
            connect(stack, service)
        released = release(service, gate)
    assert (released["held"], released["job"]["verdict"]) == (True, "filesystem")
