"""Which disks are below the filesystems of a guest: what we match must be what libvirt matches, on every bus."""

import libvirt as _libvirt
import pytest

from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Odd

pytestmark = pytest.mark.live

ODD = (Odd.SCSI, Odd.IDE, Odd.SCSI, Odd.CDROM)


@pytest.fixture
def lab_guest(make_guest: MakeGuest) -> LabGuest:
    return make_guest(GuestOptions(disks=2, odd_disks=ODD)).start_and_wait()


def guest_of(lab_guest: LabGuest) -> Guest:
    return Guest(LibvirtDomain(lab_guest.domain, lambda _: lab_guest.domain), "qemu:///system")


def test_disks_at_every_bus_are_matched_as_libvirt_matches_them(lab_guest: LabGuest) -> None:
    guest = guest_of(lab_guest)
    by_libvirt = {(mount, name, kind, tuple(targets)) for mount, name, kind, targets in lab_guest.domain.fsInfo()}
    assert {targets for _, _, _, targets in by_libvirt} == {("vda",), ("vdb",), ("sda",), ("sdb",), ("hda",)}
    assert {(fs.mountpoint, fs.name, fs.type, fs.disks) for fs in guest.filesystems()} == by_libvirt


def test_whole_disks_are_matched_as_libvirt_matches_them(lab_guest: LabGuest) -> None:
    answer = lab_guest.domain.guestInfo(_libvirt.VIR_DOMAIN_GUEST_INFO_DISKS)
    by_libvirt = {
        answer[f"disk.{number}.name"].removeprefix("/dev/"): answer[f"disk.{number}.alias"]
        for number in range(answer["disk.count"])
        if f"disk.{number}.alias" in answer
    }
    assert {"vda", "vdb", "sda", "sdb", "hda"} <= set(by_libvirt.values())
    assert guest_of(lab_guest).disks_in_guest() == by_libvirt
