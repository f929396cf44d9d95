"""Adapts a definition to a host: what the host does not know is replaced by what comes nearest, and each change is told with its reason.

A definition that the host knows is left as it is. Nothing is made newer for its own sake.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Adaptation:
    """`what`: the place in the definition. `was`, `becomes`: None where there was or will be nothing."""

    what: str
    was: str | None
    becomes: str | None
    why: str

    def as_document(self) -> dict[str, Any]:
        return {"what": self.what, "was": self.was, "becomes": self.becomes, "why": self.why}


def adapted(xml: str, capabilities: str, domain_capabilities: str | None = None) -> tuple[str, list[Adaptation]]:
    """`capabilities`, `domain_capabilities`: the XML of libvirt's calls of these names. None: the models of CPUs are not looked at."""
    root = ET.fromstring(xml)
    guest = _guest_of(ET.fromstring(capabilities), root)
    if guest is None:
        return xml, []
    changes = [*_virtualization(root, guest), *_emulator(root, guest), *_machine(root, guest)]
    changes += _cpu(root, None if domain_capabilities is None else ET.fromstring(domain_capabilities))
    return (ET.tostring(root, encoding="unicode"), changes) if changes else (xml, [])


def _guest_of(capabilities: ET.Element, root: ET.Element) -> ET.Element | None:
    """The host's `<guest>` for the architecture and the kind (hvm) of the domain. None: the host has none, and libvirt will refuse."""
    kind = root.find("./os/type")
    arch = kind.get("arch") if kind is not None else None
    for guest in capabilities.iterfind("./guest"):
        element = guest.find("arch")
        if (
            element is not None
            and arch in (None, element.get("name"))
            and guest.findtext("os_type") == (kind.text if kind is not None else "hvm")
        ):
            return guest
    return None


def _virtualization(root: ET.Element, guest: ET.Element) -> list[Adaptation]:
    has = [domain.get("type") for domain in guest.iterfind("./arch/domain")]
    was = root.get("type")
    if was in has or "qemu" not in has:
        return []
    root.set("type", "qemu")
    return [Adaptation("type", was, "qemu", "the host has no hardware virtualization: the guest runs, but slowly")]


def _emulator(root: ET.Element, guest: ET.Element) -> list[Adaptation]:
    element, known = root.find("./devices/emulator"), guest.findtext("./arch/emulator")
    if element is None or known is None:
        return []
    paths = {emulator.text for emulator in guest.iter("emulator")}
    was = (element.text or "").strip()
    if was in paths:
        return []
    element.text = known
    return [Adaptation("emulator", was, known, "the host knows no emulator at that path")]


def _machine(root: ET.Element, guest: ET.Element) -> list[Adaptation]:
    kind = root.find("./os/type")
    was = kind.get("machine") if kind is not None else None
    known = {element.text or "" for element in guest.iter("machine")} | {element.get("canonical", "") for element in guest.iter("machine")}
    if kind is None or was is None or was in known:
        return []
    nearest = nearest_machine(was, known - {""})
    if nearest is None:
        return []
    kind.set("machine", nearest)
    return [Adaptation("machine", was, nearest, "the QEMU of this host does not have that version of the machine")]


def with_own_endpoints(xml: str, folder: str, name: str) -> tuple[str, list[Adaptation]]:
    """The definition of a domain that may run while the domain that it was made from runs too. No file and no port is shared.

    `folder`, `name`: files of serial ports become `FOLDER/NAME-serial-0.log` and so on. Two domains cannot write one such file.
    """
    root = ET.fromstring(xml)
    changes = [*_output_files(root, folder, name), *_sockets(root), *_displays(root)]
    return (ET.tostring(root, encoding="unicode"), changes) if changes else (xml, [])


def _output_files(root: ET.Element, folder: str, name: str) -> list[Adaptation]:
    becomes: dict[str, str] = {}
    changes = []
    for tag in ("serial", "parallel", "console", "channel"):
        for number, device in enumerate(root.iterfind(f"./devices/{tag}")):
            source = device.find("source") if device.get("type") == "file" else None
            for attribute, element in (("path", source), ("file", device.find("log"))):
                was = element.get(attribute) if element is not None else None
                if element is None or was is None:
                    continue
                if was not in becomes:
                    # The first console is the first serial port once more, with the same file.
                    becomes[was] = f"{folder}/{name}-{tag}-{number}.log"
                    changes.append(Adaptation(tag, was, becomes[was], "the original domain writes to that file"))
                element.set(attribute, becomes[was])
    return changes


def _sockets(root: ET.Element) -> list[Adaptation]:
    """Sockets that libvirt makes at a path of the definition. Without the path, libvirt chooses one for each domain."""
    changes = []
    for device in root.iterfind("./devices/*[@type='unix']"):
        source = device.find("source[@mode='bind']")
        if source is not None and source.get("path") is not None and device.tag == "channel":
            changes.append(Adaptation(device.tag, source.get("path"), None, "the original domain has its socket there"))
            device.remove(source)
    return changes


def _displays(root: ET.Element) -> list[Adaptation]:
    changes = []
    for display in root.iterfind("./devices/graphics"):
        was = display.get("port")
        if was not in (None, "-1") and display.get("autoport") != "yes":
            display.set("port", "-1")
            display.set("autoport", "yes")
            changes.append(Adaptation("graphics", was, None, "the original domain has its display at that port"))
    return changes


_VERSIONED = re.compile(r"(?P<family>.+?)-(?P<version>\d+(?:\.\d+)+|rhel\d+(?:\.\d+)*)$")


def nearest_machine(machine: str, known: set[str]) -> str | None:
    """The newest machine of the same family that is not newer, otherwise the oldest. None: the host does not have the family."""
    match = _VERSIONED.match(machine)
    if match is None:
        return None
    family, wanted = match["family"], _version(match["version"])
    same = {_version(other["version"]): name for name in known if (other := _VERSIONED.match(name)) and other["family"] == family}
    if not same:
        return family if family in known else None
    older = [version for version in same if version <= wanted]
    return same[max(older)] if older else same[min(same)]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _cpu(root: ET.Element, domain_capabilities: ET.Element | None) -> list[Adaptation]:
    cpu = root.find("cpu")
    if cpu is None:
        return []
    mode = cpu.get("mode", "custom")
    if root.get("type") == "qemu" and mode in ("host-passthrough", "host-model"):
        root.remove(cpu)
        return [Adaptation("cpu", mode, None, "without hardware virtualization the guest cannot have the CPU of the host")]
    model = cpu.find("model")
    if domain_capabilities is None or mode != "custom" or model is None or not model.text:
        return []
    offered = {element.text: element.get("usable") for element in domain_capabilities.iterfind("./cpu/mode[@name='custom']/model")}
    if not offered or offered.get(model.text, "no") != "no":
        return []
    was, becomes = model.text, None if root.get("type") == "qemu" else "host-model"
    root.remove(cpu)
    if becomes is not None:
        ET.SubElement(root, "cpu", mode=becomes)
    return [Adaptation("cpu", was, becomes, "the CPU of this host does not have all features of that model")]
