"""What libvirt itself keeps of a domain, and what else it does with it, as the service reads it."""

import libvirt
import pytest

from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions

pytestmark = pytest.mark.live


def _guest(lab: LabGuest) -> Guest:
    return Guest(LibvirtDomain(lab.domain, lab.connection.lookupByUUIDString), "lab")


def test_a_managed_save_is_seen_and_the_start_from_it_is_another_instance(make_guest: MakeGuest) -> None:
    """All of it done by somebody else than the service: its own handle must not answer from memory."""
    lab = make_guest(GuestOptions()).start_and_wait()
    guest = _guest(lab)
    first = guest.instance()
    lab.domain.managedSave()
    assert (guest.is_shut_off(), guest.has_managed_save(), guest.instance()) == (True, True, -1)
    lab.domain.create()
    lab.wait_agent()
    assert (guest.has_managed_save(), guest.instance() > first) == (False, True)
    guest.ping()


def test_a_snapshot_of_libvirt_s_own_is_seen_by_its_name(make_guest: MakeGuest) -> None:
    lab = make_guest(GuestOptions()).start_and_wait()
    guest = _guest(lab)
    kept = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    lab.domain.snapshotCreateXML("<domainsnapshot><name>before-the-update</name></domainsnapshot>", kept)
    assert guest.snapshot_names() == ["before-the-update"]
    assert {disk.target: disk.chain_depth for disk in guest.disks()} == {"vda": 1}
    lab.domain.snapshotLookupByName("before-the-update").delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
    assert guest.snapshot_names() == []
