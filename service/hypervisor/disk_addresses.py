"""Matches the disks of a guest to the disks of its domain: the agent reports the address of each disk, and the XML has the same addresses.

libvirt does the same in virDomainGetFSInfo and virDomainGetGuestInfo. But these calls wait for the agent without a time limit (F§4.1), so
the service asks the agent with a limit, and matches its answer here.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PciAddress = tuple[int, int, int, int]
"""Domain, bus, slot, function."""
Place = tuple[int, int, int]
"""Bus, target and unit at a controller."""
CcwAddress = tuple[int, int, int]
"""The address of a device in an s390 guest: cssid, ssid, device number."""


@dataclass(frozen=True)
class _Drive:
    """A disk at a controller. `controller`: its type, which is the bus of the disk, and its index."""

    target: str
    controller: tuple[str, int]
    place: Place


class DiskAddresses:
    """The addresses of the disks of one live domain, from its XML."""

    def __init__(self, domain_xml: str) -> None:
        devices = ET.fromstring(domain_xml).find("devices")
        self._disks: dict[PciAddress | CcwAddress, str] = {}
        self._controllers: dict[PciAddress | CcwAddress, tuple[str, int]] = {}
        self._drives: list[_Drive] = []
        for element in devices if devices is not None else ():
            if element.tag == "disk":
                self._add_disk(element)
            elif element.tag == "controller" and (address := _bus_address(element.find("address"))) is not None:
                self._controllers[address] = (element.get("type", ""), int(element.get("index", "0")))

    def target_of(self, disk: Mapping[str, Any]) -> str | None:
        """`disk`: a GuestDiskAddress of the agent. None: it is not a disk of the domain, or several disks may be meant.

        Raises KeyError, TypeError if the agent's answer has another form.
        """
        pci, place = disk["pci-controller"], (disk["bus"], disk["target"], disk["unit"])
        addresses: list[PciAddress | CcwAddress] = [(pci["domain"], pci["bus"], pci["slot"], pci["function"])]
        if (ccw := disk.get("ccw-address")) is not None:
            addresses.append((ccw["cssid"], ccw["ssid"], ccw["devno"]))
        for address in addresses:
            if address in self._disks:
                return self._disks[address]
            if address in self._controllers:
                return self._drive(place, self._controllers[address])
        # An agent that does not know the controller answers -1 for every number.
        return self._drive(place, None)

    def targets_of(self, disks: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
        """The targets of several disks, without disks that do not belong to the domain."""
        return tuple(target for disk in disks if (target := self.target_of(disk)) is not None)

    def _drive(self, place: Place, controller: tuple[str, int] | None) -> str | None:
        """`controller` None: the controller is not known, and only one disk of the domain may be meant.

        libvirt takes the first disk at the place. But a virtio disk may report the same place, and a guess is not evidence.
        """
        if controller is None and self._disks:
            return None
        at_place = [drive.target for drive in self._drives if drive.place == place and controller in (None, drive.controller)]
        return at_place[0] if len(at_place) == 1 else None

    def _add_disk(self, element: ET.Element) -> None:
        where, address = element.find("target"), element.find("address")
        if where is None or address is None:
            return
        target = where.get("dev", "")
        if (bus_address := _bus_address(address)) is not None:
            self._disks[bus_address] = target
        elif address.get("type") == "drive":
            index, *place = _numbers(address, "controller", "bus", "target", "unit")
            self._drives.append(_Drive(target, (where.get("bus", ""), index), (place[0], place[1], place[2])))


def _bus_address(address: ET.Element | None) -> PciAddress | CcwAddress | None:
    match address.get("type") if address is not None else None:
        case "pci":
            domain, bus, slot, function = _numbers(address, "domain", "bus", "slot", "function")
            return domain, bus, slot, function
        case "ccw":
            cssid, ssid, devno = _numbers(address, "cssid", "ssid", "devno")
            return cssid, ssid, devno
        case _:
            return None


def _numbers(address: ET.Element | None, *names: str) -> list[int]:
    """The attributes as numbers. They are decimal, or hexadecimal with 0x."""
    assert address is not None
    return [int(address.get(name, "0"), 0) for name in names]
