"""Disks and volumes as guest-get-disks and guest-get-fsinfo show them."""

import string
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab.windows.scenario import Storage

_GB = 1 << 30
_GUIDS = uuid.UUID("2d3e4b52-9e0b-4f07-8d3a-1f6f0d2f6c55")


@dataclass(frozen=True)
class GuestDisk:
    """One disk of the virtual machine; `pci` is domain, bus, slot and function. `target` is libvirt's name, unknown to the guest."""

    serial: str
    pci: tuple[int, int, int, int]
    target: str


@dataclass(frozen=True)
class GuestVolume:
    guid: str
    mountpoint: str | None
    disks: tuple[int, ...]
    type: str
    fixed: bool
    total_bytes: int | None
    used_bytes: int | None

    @property
    def name(self) -> str:
        return f"\\\\?\\Volume{{{self.guid}}}\\"

    def is_called(self, name: str) -> bool:
        """As freeze-list finds it: by letter, by folder, or by volume GUID."""
        names = [self.name, *([self.mountpoint] if self.mountpoint else [])]
        return name.rstrip("\\").lower() in [known.rstrip("\\").lower() for known in names]


def invented_disks(number: int) -> list[GuestDisk]:
    """Disks for a guest that has no virtual machine under it."""
    letters = string.ascii_lowercase[:number]
    return [GuestDisk(f"serial-vd{letter}", (0, 0, 5 + place, 0), f"vd{letter}") for place, letter in enumerate(letters)]


def volumes_of(storage: Storage, disks: Sequence[GuestDisk]) -> list[GuestVolume]:
    if storage.volumes:
        return [GuestVolume(**volume.model_dump()) for volume in storage.volumes]
    reserved = GuestVolume(_guid("reserved"), None, (0,), "NTFS", True, None, None)
    letters = [f"{letter}:\\" for letter in string.ascii_uppercase[2 : 2 + len(disks)]]
    lettered = [GuestVolume(_guid(letter), letter, (place,), "NTFS", True, 50 * _GB, 17 * _GB) for place, letter in enumerate(letters)]
    return [reserved, *lettered]


def fsinfo(
    storage: Storage, disks: Sequence[GuestDisk], volumes: Sequence[GuestVolume], generation: tuple[int, int]
) -> list[dict[str, Any]]:
    documents = []
    for volume in volumes:
        document: dict[str, Any] = {
            "name": volume.name,
            "mountpoint": volume.mountpoint or "System Reserved",
            "disk": [_address(storage, disks, number, generation) for number in volume.disks if number < len(disks)],
            "type": volume.type,
        }
        if generation >= (3, 0) and volume.total_bytes is not None and volume.used_bytes is not None:
            document |= {"total-bytes": volume.total_bytes, "used-bytes": volume.used_bytes}
        documents.append(document)
    return documents


def disk_list(storage: Storage, disks: Sequence[GuestDisk], generation: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"name": _device(number), "partition": False, "address": _address(storage, disks, number, generation)}
        for number in range(len(disks))
    ]


def _address(storage: Storage, disks: Sequence[GuestDisk], number: int, generation: tuple[int, int]) -> dict[str, Any]:
    disk = disks[number]
    # -1 everywhere is what the agent says when it cannot find out.
    pci = disk.pci if storage.report_pci else (-1, -1, -1, -1)
    address: dict[str, Any] = {
        "bus-type": "scsi",
        "bus": 0,
        "unit": 0,
        "target": 0,
        "pci-controller": dict(zip(("domain", "bus", "slot", "function"), pci, strict=True)),
    }
    if generation >= (3, 1):
        address["dev"] = _device(number)
        if storage.report_serials and disk.serial:
            address["serial"] = disk.serial
    return address


def _device(number: int) -> str:
    return f"\\\\.\\PhysicalDrive{number}"


def _guid(name: str) -> str:
    return str(uuid.uuid5(_GUIDS, name))
