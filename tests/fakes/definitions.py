"""The definition of a fake domain: what is in its XML beside its disks."""

import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

_QCOW2 = b"QFI\xfb"
_OF_DISKS = ("disk", "channel")
_GENERATED = ("name", "uuid", "devices", "seclabel")


@dataclass
class FakeDefinition:
    """XML of elements below `<domain>` and below `<devices>`, as a caller defined them."""

    elements: list[ET.Element] = field(default_factory=list)
    devices: list[ET.Element] = field(default_factory=list)

    @classmethod
    def of(cls, root: ET.Element) -> "FakeDefinition":
        return cls(
            [element for element in root if element.tag not in _GENERATED],
            [element for element in root.iterfind("./devices/*") if element.tag not in _OF_DISKS],
        )


@dataclass(frozen=True)
class DefinedDisk:
    target: str
    device: str
    type: str
    format: str
    serial: str | None
    read_only: bool
    #: The active one first; an image below is known only if the definition says so.
    files: tuple[tuple[str, str], ...]


def disks_of(root: ET.Element) -> list[DefinedDisk]:
    return [_disk(element) for element in root.iterfind("./devices/disk")]


def has_channel(root: ET.Element) -> bool:
    return any(target.get("name") == "org.qemu.guest_agent.0" for target in root.iterfind("./devices/channel/target"))


def _disk(element: ET.Element) -> DefinedDisk:
    driver, target = element.find("driver"), element.find("target")
    image_format = driver.get("type", "raw") if driver is not None else "raw"
    return DefinedDisk(
        target=target.get("dev", "") if target is not None else "",
        device=element.get("device", "disk"),
        type=element.get("type", "file"),
        format=image_format,
        serial=element.findtext("serial"),
        read_only=element.find("readonly") is not None,
        files=tuple(_files(element, image_format)),
    )


def _files(element: ET.Element, image_format: str) -> list[tuple[str, str]]:
    files: list[tuple[str, str]] = []
    layer: ET.Element | None = element
    while layer is not None and (source := layer.find("source")) is not None:
        told = layer.find("format")
        path = source.get("file") or source.get("dev") or source.get("name") or ""
        files.append((path, image_format if not files else (told.get("type", "raw") if told is not None else "raw")))
        layer = layer.find("backingStore")
    return files


def chain_of(path: str, image_format: str) -> list[tuple[str, str]]:
    """What libvirt finds at the start of a domain: the files below, as the headers of real images name them."""
    chain = [(path, image_format)]
    while (below := _backing(Path(chain[-1][0]))) is not None:
        chain.append((str(below), "qcow2" if is_qcow2(below) else "raw"))
    return chain


def is_qcow2(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as image:
        return image.read(4) == _QCOW2


def _backing(path: Path) -> Path | None:
    if not is_qcow2(path):
        return None
    with path.open("rb") as image:
        offset, size = struct.unpack(">8xQI", image.read(20))
        if not offset:
            return None
        image.seek(offset)
        return path.parent / image.read(size).decode()
