"""Which disk of the domain a disk of the guest is. The XML has the form of libvirt's. tests/live compares with libvirt."""

from typing import Any

import pytest

from service.hypervisor.disk_addresses import DiskAddresses

DOMAIN = """<domain><devices>
  <disk><target dev='vda' bus='virtio'/><address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></disk>
  <disk><target dev='vdb' bus='virtio'/><address type='pci' domain='0x0000' bus='0x05' slot='0x0a' function='0x1'/></disk>
  <disk><target dev='sda' bus='scsi'/><address type='drive' controller='0' bus='0' target='0' unit='0'/></disk>
  <disk><target dev='sdb' bus='scsi'/><address type='drive' controller='1' bus='0' target='0' unit='0'/></disk>
  <disk><target dev='sdc' bus='scsi'/><address type='drive' controller='1' bus='0' target='0' unit='3'/></disk>
  <disk><target dev='sdd' bus='sata'/><address type='drive' controller='1' bus='0' target='0' unit='0'/></disk>
  <disk><target dev='sde' bus='usb'/><address type='usb' bus='0' port='1'/></disk>
  <disk><target dev='vdc' bus='virtio'/><address type='ccw' cssid='0xfe' ssid='0x0' devno='0x0001'/></disk>
  <disk><target dev='vdd' bus='virtio'/></disk>
  <controller type='scsi' index='0'><address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/></controller>
  <controller type='scsi' index='1'><address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></controller>
  <controller type='sata' index='1'><address type='pci' domain='0x0000' bus='0x00' slot='0x1f' function='0x2'/></controller>
  <controller type='usb' index='0'><address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></controller>
  <controller type='scsi' index='2'><address type='ccw' cssid='0xfe' ssid='0x0' devno='0x0002'/></controller>
</devices></domain>"""
UNKNOWN = (-1, -1, -1, -1)


def disk(pci: tuple[int, int, int, int] = UNKNOWN, *, bus: int = 0, target: int = 0, unit: int = 0) -> dict[str, Any]:
    controller = dict(zip(("domain", "bus", "slot", "function"), pci, strict=True))
    return {"bus-type": "unknown", "bus": bus, "target": target, "unit": unit, "pci-controller": controller}


def ccw(device: int) -> dict[str, Any]:
    return {"ccw-address": {"cssid": 0xFE, "ssid": 0, "subchno": 7, "devno": device}}


@pytest.mark.parametrize(
    ("address", "target"),
    [
        pytest.param(disk((0, 4, 0, 0)), "vda", id="virtio"),
        pytest.param(disk((0, 5, 10, 1)), "vdb", id="virtio, numbers are hexadecimal"),
        pytest.param(disk((0, 2, 0, 0)), "sda", id="first of two controllers"),
        pytest.param(disk((0, 3, 0, 0)), "sdb", id="same place at the second controller"),
        pytest.param(disk((0, 3, 0, 0), unit=3), "sdc", id="another unit"),
        pytest.param(disk((0, 0, 0x1F, 2)), "sdd", id="same index and place, another type of controller"),
        pytest.param(disk((0, 3, 0, 0), unit=9), None, id="no disk at this unit"),
        pytest.param(disk((0, 6, 0, 0)), None, id="a disk at a controller without drive addresses"),
        pytest.param(disk(unit=3), None, id="unknown controller, and a virtio disk may be meant"),
        pytest.param(disk(), None, id="unknown controller, several disks at this place"),
        pytest.param(disk((0, 9, 0, 0), unit=3), None, id="a controller that the XML does not have, and a virtio disk may be meant"),
        pytest.param(disk() | ccw(1), "vdc", id="ccw"),
        pytest.param(disk() | ccw(2), None, id="ccw controller, no disk"),
    ],
)
def test_a_disk_of_the_guest_is_found_by_its_place(address: dict[str, Any], target: str | None) -> None:
    assert DiskAddresses(DOMAIN).target_of(address) == target


@pytest.mark.parametrize("pci", [UNKNOWN, (0, 9, 0, 0)])
def test_without_a_disk_on_the_bus_the_place_alone_tells_one_disk_from_the_others(pci: tuple[int, int, int, int]) -> None:
    only_drives = DiskAddresses("\n".join(line for line in DOMAIN.splitlines() if "bus='virtio'" not in line))
    assert only_drives.target_of(disk(pci, unit=3)) == "sdc"
    assert only_drives.target_of(disk(pci)) is None


def test_what_is_not_of_the_domain_is_left_out_of_several() -> None:
    addresses = DiskAddresses(DOMAIN)
    assert addresses.targets_of([disk((0, 5, 10, 1)), disk((0, 6, 0, 0)), disk((0, 4, 0, 0))]) == ("vdb", "vda")


@pytest.mark.parametrize("answer", [{}, disk() | {"pci-controller": None}, disk() | {"pci-controller": {"domain": 0}}, None])
def test_an_answer_of_another_form_is_an_error(answer: Any) -> None:
    with pytest.raises((KeyError, TypeError)):
        DiskAddresses(DOMAIN).target_of(answer)


def test_a_domain_without_devices_has_no_disks() -> None:
    assert DiskAddresses("<domain/>").target_of(disk((0, 4, 0, 0))) is None
