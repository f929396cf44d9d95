"""A point that fell short is taken back on a real guest: the disks are as before, and nothing that was written is lost."""

import pytest

from tests.lab.disks import chain
from tests.lab.fixtures import MakeGuest
from tests.lab.options import GuestOptions
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


def test_the_overlays_are_merged_back_and_the_guest_goes_on(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=2)).start_and_wait()
    guest.exec("/bin/sh", "-c", "echo before > /data/before; sync")

    job = service.run(guest.name, freeze={"mode": "off"}, required_verdict="filesystem", on_shortfall="discard")
    guest.exec("/bin/sh", "-c", "echo after > /data/after; sync")

    assert (job["state"], job["error"]["code"], job["recovery_point"]) == ("failed", "verdict_below_required", None)
    assert guest.active_sources() == guest.disks
    assert overlays_beside(guest) == set()
    assert chain(guest.disks["vda"]) == [guest.disks["vda"]]
    assert guest.exec("/bin/sh", "-c", "cat /data/before /data/after").split() == ["before", "after"]
    assert service.run(guest.name)["verdict"] == "filesystem"
