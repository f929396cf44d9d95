"""Reads and changes the definition of a domain. Pure: each function returns a new text, and none asks a host.

XML is never made by string formatting.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

SWTPM_FOLDER = "/var/lib/libvirt/swtpm"
"""Where a libvirt that root runs keeps the state of emulated TPMs."""
_TPM_STATE = {"1.2": "tpm1.2", "2.0": "tpm2"}

# Without these, Python renames the prefixes. libvirt reads both forms, but a person compares definitions.
ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
ET.register_namespace("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0")


@dataclass(frozen=True)
class Identity:
    """By what a guest, its network and its licences know a machine. `serials`: by disk target, only where the definition has one."""

    name: str
    uuid: str
    macs: tuple[str, ...] = ()
    serials: Mapping[str, str] = field(default_factory=dict)
    #: None: the definition has no `<genid>`, so Windows cannot notice a restore. Empty: libvirt makes one at each start.
    genid: str | None = None


def identity_of(xml: str) -> Identity:
    root = ET.fromstring(xml)
    return Identity(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        macs=tuple(mac.get("address", "") for mac in root.iterfind("./devices/interface/mac")),
        serials={_target(disk): serial for disk in _disks(root) if (serial := disk.findtext("serial")) is not None},
        genid=genid(xml),
    )


def genid(xml: str) -> str | None:
    """None: the definition has no `<genid>`."""
    element = ET.fromstring(xml).find("genid")
    return None if element is None else (element.text or "").strip()


def nvram_path(xml: str) -> str | None:
    """The file with the variables of UEFI. None: the domain has no such file, or it is not a local file."""
    element = ET.fromstring(xml).find("./os/nvram")
    if element is None:
        return None
    source = element.find("source")
    return (source.get("file") if source is not None else (element.text or "").strip()) or None


def tpm_state(xml: str, folder: str = SWTPM_FOLDER) -> str | None:
    """The folder with the state of an emulated TPM. None: the domain has no emulated TPM."""
    root = ET.fromstring(xml)
    backend = root.find("./devices/tpm/backend[@type='emulator']")
    if backend is None:
        return None
    source = backend.find("source")
    if source is not None and source.get("path") is not None:
        return source.get("path")
    # libvirt chooses version 2.0 if the definition names none.
    return f"{folder}/{root.findtext('uuid', '')}/{_TPM_STATE.get(backend.get('version', '2.0'), 'tpm2')}"


def targets_of(xml: str) -> list[str]:
    return [_target(disk) for disk in _disks(ET.fromstring(xml))]


def with_sources(xml: str, sources: Mapping[str, str], image_format: str) -> str:
    """The disks of `sources` (by target) on other files. What belonged to the old files is taken away: chain, mirror, slice, encryption."""
    root = ET.fromstring(xml)
    for disk in _disks(root):
        path = sources.get(_target(disk))
        if path is None:
            continue
        disk.set("type", "file")
        for tag in ("backingStore", "mirror"):
            _remove_all(disk, tag)
        driver = _child(disk, "driver")
        driver.set("name", "qemu")
        driver.set("type", image_format)
        source = _child(disk, "source")
        source.clear()
        source.set("file", path)
    return _text(root)


def without_disks(xml: str, targets: Iterable[str]) -> str:
    root = ET.fromstring(xml)
    devices, unwanted = root.find("devices"), set(targets)
    for disk in _disks(root):
        if _target(disk) in unwanted and devices is not None:
            devices.remove(disk)
    return _text(root)


def without_backing_store(xml: str) -> str:
    """Without what libvirt remembers of the files below: at the next start libvirt reads the images again."""
    root = ET.fromstring(xml)
    for disk in _disks(root):
        for tag in ("backingStore", "mirror"):
            _remove_all(disk, tag)
    return _text(root)


def files_of(xml: str, target: str) -> list[str]:
    """The files that the definition names for a disk, the active one first."""
    disk = next((disk for disk in _disks(ET.fromstring(xml)) if _target(disk) == target), None)
    sources = [] if disk is None else [layer.find("source") for layer in (disk, *disk.iter("backingStore"))]
    named = [source.get("file") or source.get("dev") for source in sources if source is not None]
    return [name for name in named if name is not None]


def without_file_below(xml: str, target: str, path: str) -> str:
    """The disk without this file below it: what stood on it stands on the file below it. Another text only if the definition names it."""
    root = ET.fromstring(xml)
    for disk in _disks(root):
        for layer in [disk, *disk.iter("backingStore")] if _target(disk) == target else []:
            below = layer.find("backingStore")
            source = below.find("source") if below is not None else None
            if below is None or source is None or source.get("file") != path:
                continue
            position = list(layer).index(below)
            layer.remove(below)
            if (further := below.find("backingStore")) is not None:
                layer.insert(position, further)
            return _text(root)
    return xml


def without_security_labels(xml: str) -> str:
    """Without the labels that libvirt chose for one run. Labels that the definition fixes stay (`static`, `none`)."""
    root = ET.fromstring(xml)
    for parent in list(root.iter()):
        for label in parent.findall("seclabel"):
            if label.get("type", "dynamic") == "dynamic" and label.get("relabel") != "no":
                parent.remove(label)
    return _text(root)


def with_identity(
    xml: str,
    *,
    name: str | None = None,
    uuid: str | None = None,
    macs: Mapping[str, str] | None = None,
    serials: Mapping[str, str] | None = None,
    new_genid: str | None = None,
    nvram: str | None = None,
) -> str:
    """`macs`: the new address of each old one. `serials`: by disk target. None leaves a value as it is.

    `new_genid` changes an existing `<genid>` and adds none: a guest without this device would get a new device.
    """
    root = ET.fromstring(xml)
    for tag, value in (("name", name), ("uuid", uuid)):
        if value is not None:
            _child(root, tag).text = value
    if uuid is not None:
        # libvirt refuses a definition whose SMBIOS table names another UUID.
        for entry in root.iterfind("./sysinfo/system/entry[@name='uuid']"):
            entry.text = uuid
    for mac in root.iterfind("./devices/interface/mac"):
        mac.set("address", (macs or {}).get(mac.get("address", ""), mac.get("address", "")))
    for disk in _disks(root):
        serial = (serials or {}).get(_target(disk))
        if serial is not None:
            _child(disk, "serial").text = serial
    if new_genid is not None and (element := root.find("genid")) is not None:
        element.text = new_genid
    if nvram is not None:
        _set_nvram(root, nvram)
    return _text(root)


def _set_nvram(root: ET.Element, path: str) -> None:
    element = root.find("./os/nvram")
    if element is None:
        return
    if (source := element.find("source")) is not None:
        source.set("file", str(PurePosixPath(path)))
    else:
        element.text = path


def _disks(root: ET.Element) -> list[ET.Element]:
    return root.findall("./devices/disk")


def _target(disk: ET.Element) -> str:
    element = disk.find("target")
    return element.get("dev", "") if element is not None else ""


def _child(parent: ET.Element, tag: str) -> ET.Element:
    element = parent.find(tag)
    return element if element is not None else ET.SubElement(parent, tag)


def _remove_all(parent: ET.Element, tag: str) -> None:
    for element in parent.findall(tag):
        parent.remove(element)


def _text(root: ET.Element) -> str:
    return ET.tostring(root, encoding="unicode")
