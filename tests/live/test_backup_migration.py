"""A guest that migrates while its backup copies: the point is good, the job says what is left, and the next backup puts it right."""

import os
from collections.abc import Iterator

import libvirt
import pytest

from tests.lab.disks import chain
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.second_host import SecondHost, migrate, second_host
from tests.live.folders import folder_for_qemu
from tests.live.repositories import ask, register, wait_for_phase
from tests.live.test_backup import write
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

SLOW_BYTES_S = 4 << 20
DATA_MB = 12


@pytest.fixture
def guest(lab: None) -> Iterator[LabGuest]:
    guest = LabGuest(GuestOptions(name=f"lab-t-migrates-{os.getpid()}", meter={"interval_us": 20_000, "sync_every": 4}))
    try:
        yield guest.start_and_wait()
    finally:
        guest.destroy()


@pytest.fixture
def host(lab: None) -> Iterator[SecondHost]:
    with second_host() as host:
        yield host


def bring_back(guest: LabGuest, host: SecondHost) -> None:
    """It is shut down there, and started here. Its disk is on the overlay that the backup has left."""
    there = host.connection.lookupByName(guest.name)
    definition = there.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace("serial.second.log", "serial.log")
    there.destroy()
    there.undefine()
    guest.connection.defineXML(definition)
    guest.start_and_wait()


def test_a_guest_that_migrates_during_the_copy_and_comes_back(service: ServiceProcess, guest: LabGuest, host: SecondHost) -> None:
    with folder_for_qemu("repository") as folder:
        repository_id = register(service, folder / "nas")
        write(guest, "bulk", DATA_MB)
        job_id = service.create(guest.name, "backup", repository=repository_id, compare="nothing", rate_limit_bytes=SLOW_BYTES_S)
        assert wait_for_phase(service, job_id)["phase"] == "transfer"

        moved = migrate(guest, host)
        job = service.wait(job_id)

        # The files that are copied are still, wherever the guest runs. But nobody here can merge its overlay.
        assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "filesystem", "merge_unfinished")
        assert job["error"]["facts"]["disks"] == "vda"
        assert moved.isActive()
        assert service.wait(ask(service, "verify", recovery_point=job["recovery_point"]["id"]))["state"] == "succeeded"
        assert len(overlays_beside(guest)) == 1

        bring_back(guest, host)
        write(guest, "after")
        again = service.run(guest.name, "backup", repository=repository_id, compare="everything")

        assert (again["state"], again["error"], again["verdict"]) == ("succeeded", None, "filesystem")
        # libvirt does not take its record of a checkpoint to another host. Without it nobody knows what was written meanwhile.
        (disk,) = again["result"]["backup"]["disks"]
        assert (disk["level"], bool(disk["reason"])) == ("full", True)
        assert guest.active_sources() == guest.disks
        assert (overlays_beside(guest), chain(guest.disks["vda"])) == (set(), [guest.disks["vda"]])
        assert len(guest.domain.listAllCheckpoints()) == 1
        assert "bulk" in guest.exec("/bin/ls", "/data").split()
