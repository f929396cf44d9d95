"""Reads a domain's XML, and writes the XML of a snapshot. XML is never made by string formatting."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from service.model.inventory import Disk, DiskWords

AGENT_CHANNEL = "org.qemu.guest_agent.0"


@dataclass(frozen=True)
class Mirror:
    """A block job that writes the data of a disk into another file. `job`: `copy` or `active-commit`."""

    job: str
    into: str | None
    #: Both files have the same data now, and QEMU keeps them the same.
    is_ready: bool


def disks_of(domain_xml: str) -> list[Disk]:
    """Every disk of a domain, in the order of the XML."""
    return [_disk(element) for element in ET.fromstring(domain_xml).iterfind("./devices/disk")]


def has_agent_channel(domain_xml: str) -> bool:
    return _agent_target(domain_xml) is not None


def agent_is_connected(domain_xml: str) -> bool | None:
    """The state in the live XML. None: the domain has no channel, or does not run."""
    target = _agent_target(domain_xml)
    state = target.get("state") if target is not None else None
    return None if state is None else state == "connected"


def mirror_of(domain_xml: str, target: str) -> Mirror | None:
    """The `<mirror>` of a disk; None: no block job writes this disk into another file."""
    for disk in ET.fromstring(domain_xml).iterfind("./devices/disk"):
        mirror, name = disk.find("mirror"), disk.find("target")
        if mirror is not None and name is not None and name.get("dev") == target:
            return Mirror(
                mirror.get("job", "copy"), _source_name(mirror.get("type", "file"), mirror.find("source")), mirror.get("ready") == "yes"
            )
    return None


def snapshot_xml(overlays: dict[str, str], all_targets: list[str]) -> str:
    """A `<domainsnapshot>` that moves exactly the disks in `overlays` (by target, the overlay's path). Every other disk gets `no`."""
    root = ET.Element("domainsnapshot")
    disks = ET.SubElement(root, "disks")
    for target in all_targets:
        if target not in overlays:
            ET.SubElement(disks, "disk", name=target, snapshot="no")
            continue
        disk = ET.SubElement(disks, "disk", name=target, snapshot="external", type="file")
        ET.SubElement(disk, "driver", type="qcow2")
        ET.SubElement(disk, "source", file=overlays[target])
    return ET.tostring(root, encoding="unicode")


def _agent_target(domain_xml: str) -> ET.Element | None:
    return ET.fromstring(domain_xml).find(f"./devices/channel/target[@name='{AGENT_CHANNEL}']")


def _disk(element: ET.Element) -> Disk:
    source = element.find("source")
    driver = element.find("driver")
    target = element.find("target")
    kind = element.get("type", "file")
    return Disk(
        target=target.get("dev", "?") if target is not None else "?",
        device=element.get("device", "disk"),
        type=kind,
        source=_source_name(kind, source),
        format=driver.get("type") if driver is not None else None,
        read_only=element.find("readonly") is not None,
        serial=element.findtext("serial"),
        chain_depth=len(_chain(element)),
        words=_words(element, source),
        chain=tuple(_chain(element)),
        removable=target is not None and target.get("removable") == "on",
    )


def _words(element: ET.Element, source: ET.Element | None) -> DiskWords:
    # The whole element is searched, so that files below count as well: an overlay stands on all of them.
    return DiskWords(
        snapshot=element.get("snapshot"),
        shareable=element.find("shareable") is not None,
        transient=element.find("transient") is not None,
        encrypted=any(True for _ in element.iter("encryption")),
        sliced=any(True for _ in element.iter("slice")),
        by_descriptor=source is not None and source.get("fdgroup") is not None,
        has_data_store=any(True for _ in element.iter("dataStore")),
    )


def _source_name(kind: str, source: ET.Element | None) -> str | None:
    if source is None:
        return None
    if kind == "network":
        return f"{source.get('protocol', '?')}:{source.get('name', '')}"
    if kind == "volume":
        return f"{source.get('pool', '?')}/{source.get('volume', '?')}"
    return source.get("file") or source.get("dev") or source.get("dir")


def _chain(element: ET.Element) -> list[str | None]:
    """The files below the active file, as far as libvirt knows them. An empty <backingStore/> ends the chain."""
    below: list[str | None] = []
    layer = element.find("backingStore")
    while layer is not None and (source := layer.find("source")) is not None:
        below.append(_source_name(layer.get("type", "file"), source))
        layer = layer.find("backingStore")
    return below
