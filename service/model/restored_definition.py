"""The definition of a restored domain: on its new disks, with its new identity, and without what belongs to another domain. Pure."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.model import domain_xml
from service.model.host_adaptation import Adaptation
from service.model.restore_identity import Identity

_OF_LIBVIRT = ("/var/lib/libvirt/", "/run/libvirt/", "/var/run/libvirt/")
"""Sockets there have the name or the number of a domain. libvirt makes new ones where the definition names none."""


@dataclass(frozen=True)
class NewDisk:
    """`below`: the files below, the upper one first: the disk is an overlay that stands on them."""

    path: str
    format: str
    below: Sequence[str] = ()


@dataclass(frozen=True)
class Changes:
    """`disks`: by target. `is_new_domain`: disks that are not named are taken away, because two domains must not write to one file.

    `unlabelled`: the security models of the host whose labels the files below shall not get.
    """

    identity: Identity
    disks: Mapping[str, NewDisk]
    is_new_domain: bool
    nvram: str | None = None
    unlabelled: Sequence[str] = ()


def restored(xml: str, changes: Changes) -> tuple[str, list[Adaptation]]:
    """The new definition, and what was taken away."""
    taken: list[Adaptation] = []
    identity = changes.identity
    if changes.is_new_domain:
        xml, taken = _without_foreign_parts(domain_xml.without_security_labels(xml), changes.disks)
        if domain_xml.identity_of(xml).uuid != identity.uuid:
            xml, logs = _with_own_logs(xml, identity.uuid)
            taken += logs
        own = {"name": identity.name, "uuid": identity.uuid}
        xml = domain_xml.with_identity(xml, **own, macs=identity.macs, serials=identity.serials)
    xml = domain_xml.with_identity(xml, new_genid=identity.genid, nvram=changes.nvram)
    for image_format in sorted({disk.format for disk in changes.disks.values()}):
        sources = {target: disk.path for target, disk in changes.disks.items() if disk.format == image_format}
        xml = domain_xml.with_sources(xml, sources, image_format)
    return _with_chains(xml, changes), taken


def with_storage_of(xml: str, other: str) -> str:
    """`xml` with the disks, the generation id and the NVRAM of `other`: everything of a domain in place that a restore changes."""
    root, source = ET.fromstring(xml), ET.fromstring(other)
    devices = root.find("devices")
    wanted = {_target(disk): disk for disk in source.findall("./devices/disk")}
    for disk in root.findall("./devices/disk"):
        if devices is not None and _target(disk) in wanted:
            position = list(devices).index(disk)
            devices.remove(disk)
            devices.insert(position, wanted[_target(disk)])
    for place, tag in ((".", "genid"), ("./os", "nvram")):
        parent, old, new = root.find(place), root.find(f"{place}/{tag}"), source.find(f"{place}/{tag}")
        if parent is not None and old is not None and new is not None:
            position = list(parent).index(old)
            parent.remove(old)
            parent.insert(position, new)
    return ET.tostring(root, encoding="unicode")


def standing_alone(xml: str, targets: Sequence[str]) -> str:
    """The definition of a domain whose overlays were made whole while it was off: it names no file below any more."""
    root = ET.fromstring(xml)
    for element in root.iterfind("./devices/disk"):
        if _target(element) in targets:
            for chain in element.findall("backingStore"):
                element.remove(chain)
    return ET.tostring(root, encoding="unicode")


def standing_on_again(xml: str, other: str, targets: Sequence[str]) -> str:
    """`xml` with the files below that `other` names for the disks `targets`."""
    root = ET.fromstring(xml)
    below = {_target(element): element.find("backingStore") for element in ET.fromstring(other).iterfind("./devices/disk")}
    for element in root.iterfind("./devices/disk"):
        chain = below.get(_target(element))
        if _target(element) in targets and chain is not None:
            for old in element.findall("backingStore"):
                element.remove(old)
            element.append(chain)
    return ET.tostring(root, encoding="unicode")


def files_below(xml: str) -> dict[str, list[str]]:
    """By target: the files below the active one that the definition names."""
    below: dict[str, list[str]] = {}
    for element in ET.fromstring(xml).iterfind("./devices/disk"):
        sources = [source.get("file") for layer in element.iter("backingStore") for source in layer.iterfind("source")]
        below[_target(element)] = [source for source in sources if source is not None]
    return below


def _target(element: ET.Element) -> str:
    target = element.find("target")
    return target.get("dev", "?") if target is not None else "?"


def _with_chains(xml: str, changes: Changes) -> str:
    """All files below are named, so that libvirt looks into none of them, and gives none of them another owner."""
    if not any(disk.below for disk in changes.disks.values()):
        return xml
    root = ET.fromstring(xml)
    for element in root.iterfind("./devices/disk"):
        new = changes.disks.get(_target(element))
        if new is not None and new.below:
            element.append(_chain(new.below, changes.unlabelled))
    return ET.tostring(root, encoding="unicode")


def _chain(below: Sequence[str], unlabelled: Sequence[str]) -> ET.Element:
    layer = ET.Element("backingStore")
    for path in reversed(below):
        upper = ET.Element("backingStore", type="file")
        ET.SubElement(upper, "format", type="qcow2")
        source = ET.SubElement(upper, "source", file=path)
        for model in unlabelled:
            ET.SubElement(source, "seclabel", model=model, relabel="no")
        upper.append(layer)
        layer = upper
    return layer


def _without_foreign_parts(xml: str, disks: Mapping[str, NewDisk]) -> tuple[str, list[Adaptation]]:
    """Without the disks and media that are not restored, and without paths that another domain uses."""
    root, taken = ET.fromstring(xml), []
    devices = root.find("devices")
    for element in root.findall("./devices/disk"):
        target, source = _target(element), element.find("source")
        if target in disks or devices is None:
            continue
        was = (source.get("file") or source.get("dev") or source.get("name")) if source is not None else None
        if element.get("device") not in ("cdrom", "floppy"):
            devices.remove(element)
            taken.append(Adaptation(f"disk {target}", was, None, "it is not restored, and another domain may write to its file"))
        elif source is not None:
            element.remove(source)
            taken.append(Adaptation(f"medium in {target}", was, None, "it may not exist on this host"))
    for channel in root.iterfind("./devices/channel[@type='unix']"):
        source = channel.find("source")
        if source is not None and (source.get("path") or "").startswith(_OF_LIBVIRT):
            channel.remove(source)
    return ET.tostring(root, encoding="unicode"), taken


def _with_own_logs(xml: str, uuid: str) -> tuple[str, list[Adaptation]]:
    """Two domains cannot write the output of their ports to one file: libvirt opens it once."""
    root, changed = ET.fromstring(xml), {}
    for port in (*root.iterfind("./devices/serial[@type='file']"), *root.iterfind("./devices/console[@type='file']")):
        source = port.find("source")
        was = source.get("path") if source is not None else None
        if source is not None and was is not None:
            changed[was] = f"{was}.{uuid[:8]}"
            source.set("path", changed[was])
    changes = [Adaptation("file of a port", was, becomes, "the other domain writes to its file") for was, becomes in changed.items()]
    return (ET.tostring(root, encoding="unicode"), changes) if changes else (xml, [])
