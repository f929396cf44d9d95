"""Checkpoints of a domain: from the instant of a checkpoint on, a bitmap in each of its disks records what is written.

A checkpoint is two things: a bitmap in the qcow2 file of each disk, and libvirt's own record of it. Either may be lost without the other
(F§4.2).
"""

import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from service.errors import LibvirtCallFailed
from service.hypervisor.calls import LibvirtCalls
from service.hypervisor.handle import DomainHandle, libvirt

CREATE_CALL = "virDomainCheckpointCreateXML"
DELETE_CALL = "virDomainCheckpointDelete"
READ_CALL = "virDomainCheckpointGetXMLDesc"

PREFIX = "stillpoint-"


def checkpoint_name(repository_id: str, point_id: str) -> str:
    """The name of our checkpoint, and of its bitmap. It is used once: a name that was used is never free for sure."""
    return f"{prefix_of(repository_id)}{point_id[:8]}"


def prefix_of(repository_id: str) -> str:
    """How the names of the checkpoints of one repository begin."""
    return f"{PREFIX}{repository_id[:8]}-"


def is_ours(name: str) -> bool:
    return name.startswith(PREFIX)


@dataclass(frozen=True)
class Deleted:
    """`bitmap_is_gone` False: only libvirt's record is gone, because the bitmap is broken or out of reach. It may stay in the file."""

    bitmap_is_gone: bool
    reason: str | None = None


class Checkpoints:
    def __init__(self, handle: DomainHandle, calls: LibvirtCalls) -> None:
        self._handle = handle
        self._calls = calls

    def create(self, name: str, targets: Sequence[str]) -> None:
        """The domain must run. Every file of `targets` must be a qcow2. Raises LibvirtCallFailed: then there is no new checkpoint."""
        self._calls(CREATE_CALL, lambda: self._handle.checkpoint_create(checkpoint_xml(name, targets), 0))

    def names(self) -> list[str]:
        """All checkpoints that libvirt has a record of, also those of other tools."""
        return self._calls("virDomainListAllCheckpoints", self._handle.checkpoint_names)

    def xml(self, name: str) -> str:
        """What `redefine` needs. Raises LibvirtCallFailed."""
        return self._calls(READ_CALL, lambda: self._handle.checkpoint_xml(name, 0))

    def changed_bytes(self, name: str) -> dict[str, int | None]:
        """By target: the size of the next increment. None: libvirt does not know, for example because the bitmap is broken.

        Raises LibvirtCallFailed if the domain is off.
        """
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN | libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE
        root = ET.fromstring(self._calls(READ_CALL, lambda: self._handle.checkpoint_xml(name, flags)))
        disks = root.findall("./disks/disk[@checkpoint='bitmap']")
        return {disk.get("name", ""): int(size) if (size := disk.get("size")) is not None else None for disk in disks}

    def redefine(self, xml: str, *, is_validated: bool = False) -> None:
        """Give libvirt its record of a checkpoint back. `is_validated`: refuse if a bitmap is not whole, for which the domain must run."""
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
        if is_validated:
            flags |= libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
        self._calls(CREATE_CALL, lambda: self._handle.checkpoint_create(xml, flags))

    def delete(self, name: str, *, metadata_only: bool = False) -> Deleted:
        """Delete a checkpoint with its bitmaps. A checkpoint that libvirt has no record of counts as deleted.

        If the bitmap of a disk is missing, or the domain is off, libvirt deletes nothing (F§4.2). Then only libvirt's record is deleted.
        """
        try:
            if not metadata_only:
                self._delete(name, 0)
                return Deleted(bitmap_is_gone=True)
        except LibvirtCallFailed as error:
            if error.facts["libvirt_code"] == libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT:
                return Deleted(bitmap_is_gone=False, reason=error.facts["message"])
            self._forget(name)
            return Deleted(bitmap_is_gone=False, reason=error.facts["message"])
        self._forget(name)
        return Deleted(bitmap_is_gone=False)

    def set_aside(self) -> dict[str, str]:
        """Take libvirt's record of our checkpoints away. Their bitmaps stay, and continue to record. `put_back` gives the records back.

        libvirt takes no external snapshot of a domain that is shut off and has checkpoints. Write the result into the intent of the job
        before this call: see `of_ours`.
        """
        aside = self.of_ours()
        for name in aside:
            self._forget(name)
        return aside

    def of_ours(self) -> dict[str, str]:
        """The XML of each of our checkpoints by its name, parents first."""
        return {name: self.xml(name) for name in self.names() if is_ours(name)}

    def put_back(self, aside: Mapping[str, str]) -> None:
        """Give `set_aside`'s checkpoints back. Those that are there already are left alone, so this call can be repeated."""
        there = set(self.names())
        for name, xml in aside.items():
            if name not in there:
                self.redefine(without_lost_parent(xml, there))
                there.add(name)

    def _forget(self, name: str) -> None:
        try:
            self._delete(name, libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
        except LibvirtCallFailed as error:
            if error.facts["libvirt_code"] != libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT:
                raise

    def _delete(self, name: str, flags: int) -> None:
        self._calls(DELETE_CALL, lambda: self._handle.checkpoint_delete(name, flags))


def without_lost_parent(xml: str, there: Collection[str]) -> str:
    """libvirt refuses a checkpoint whose parent it has no record of. The parent may have been deleted meanwhile."""
    root = ET.fromstring(xml)
    parent = root.find("parent")
    if parent is not None and parent.findtext("name") not in there:
        root.remove(parent)
    return ET.tostring(root, encoding="unicode")


def checkpoint_xml(name: str, targets: Sequence[str]) -> str:
    """Disks that are not named take no part."""
    root = ET.Element("domaincheckpoint")
    ET.SubElement(root, "name").text = name
    disks = ET.SubElement(root, "disks")
    for target in targets:
        ET.SubElement(disks, "disk", name=target, checkpoint="bitmap")
    return ET.tostring(root, encoding="unicode")
