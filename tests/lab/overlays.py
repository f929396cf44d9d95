"""External snapshots as a test takes them: overlays made before, one call, nothing of the service involved."""

from pathlib import Path
from xml.etree import ElementTree

import libvirt

from tests.lab.command import run
from tests.lab.guests import LabGuest

_FLAGS = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)


def take_snapshot(guest: LabGuest, suffix: str = "snap") -> dict[str, Path]:
    """Moves every disk to an overlay; returns the files that now hold the point in time."""
    before = guest.active_sources()
    xml = snapshot_xml({target: make_overlay(image, suffix) for target, image in before.items()})
    guest.domain.snapshotCreateXML(xml, _FLAGS)
    return before


def make_overlay(image: Path, suffix: str) -> Path:
    overlay = image.with_name(f"{image.stem}.{suffix}.qcow2")
    # -u: the size is given, so that the image in use is not opened
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", image, "-F", "qcow2", overlay, str(virtual_size(image))])
    return overlay


def virtual_size(image: Path) -> int:
    with image.open("rb") as header:
        header.seek(24)
        return int.from_bytes(header.read(8), "big")


def snapshot_xml(overlays: dict[str, Path]) -> str:
    snapshot = ElementTree.Element("domainsnapshot")
    disks = ElementTree.SubElement(snapshot, "disks")
    for target, overlay in overlays.items():
        disk = ElementTree.SubElement(disks, "disk", name=target, snapshot="external", type="file")
        ElementTree.SubElement(disk, "driver", type="qcow2")
        ElementTree.SubElement(disk, "source", file=str(overlay))
    return ElementTree.tostring(snapshot, encoding="unicode")
