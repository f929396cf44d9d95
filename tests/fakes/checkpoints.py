"""Checkpoints of a fake domain: libvirt's records, and the bitmaps in the files. Either may be lost without the other."""

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt as _libvirt

from tests.fakes.definitions import is_qcow2
from tests.fakes.libvirt_errors import libvirt_error, not_running

libvirt: Any = _libvirt

WHOLE, IN_USE = "whole", "in-use"


@dataclass
class _Record:
    targets: tuple[str, ...]
    parent: str | None
    created: int


class FakeCheckpoints:
    """`active_file`: the active file of a disk. A file that is a real qcow2 gets real bitmaps, where `are_real`."""

    def __init__(self, active_file: Callable[[str], str]) -> None:
        self.records: dict[str, _Record] = {}
        #: By file, by name: WHOLE or IN_USE.
        self.bitmaps: dict[str, dict[str, str]] = {}
        #: Real bitmaps in the real images, so that `qemu-nbd -B` can read them.
        self.are_real = False
        self._active_file = active_file
        self._created = 0

    # --- as libvirt does --------------------------------------------------------------------------

    def create(self, xml: str, flags: int, *, runs: bool) -> None:
        root = ET.fromstring(xml)
        name = root.findtext("name") or ""
        targets = tuple(disk.get("name", "") for disk in root.iterfind("./disks/disk") if disk.get("checkpoint") != "no")
        if flags & libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE:
            self._redefine(root, name, targets, bool(flags & libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE), runs=runs)
            return
        if not runs:
            raise _unsupported("cannot create checkpoint for inactive domain")
        if name in self.records:
            raise libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, f"operation failed: domain moment {name} already exists")
        for target in targets:
            if name in self.bitmaps.get(self._active_file(target), {}):
                message = f"internal error: unable to execute QEMU command 'transaction': Bitmap already exists: {name}"
                raise libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, message)
        for target in targets:
            self.add_bitmap(self._active_file(target), name)
        self._created += 1
        self.records[name] = _Record(targets, next(reversed(self.records), None), self._created)

    def names(self) -> list[str]:
        return list(self.records)

    def xml(self, name: str, flags: int, domain_xml: str, *, runs: bool) -> str:
        record = self._record(name)
        with_sizes = bool(flags & libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE)
        if with_sizes and not runs:
            raise not_running()
        root = ET.Element("domaincheckpoint")
        ET.SubElement(root, "name").text = name
        if record.parent is not None:
            ET.SubElement(ET.SubElement(root, "parent"), "name").text = record.parent
        ET.SubElement(root, "creationTime").text = str(record.created)
        disks = ET.SubElement(root, "disks")
        for target in record.targets:
            disk = ET.SubElement(disks, "disk", name=target, checkpoint="bitmap", bitmap=name)
            if with_sizes and self.bitmaps.get(self._active_file(target), {}).get(name) == WHOLE:
                disk.set("size", "65536")
        if not flags & libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN:
            root.append(ET.fromstring(domain_xml))
        return ET.tostring(root, encoding="unicode")

    def delete(self, name: str, flags: int, *, runs: bool) -> None:
        record = self._record(name)
        if not flags & libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY:
            if not runs:
                raise _unsupported("cannot delete checkpoint for inactive domain")
            for target in record.targets:
                if name not in self.bitmaps.get(self._active_file(target), {}):
                    raise _inconsistent(name, target)
            for target in record.targets:
                self.drop_bitmap(self._active_file(target), name)
        del self.records[name]
        for child in self.records.values():
            if child.parent == name:
                child.parent = record.parent

    # --- what happens to the files ----------------------------------------------------------------

    def are_forgotten(self) -> None:
        """A live migration takes the bitmaps along, and not libvirt's records."""
        self.records.clear()

    def carried_into(self, overlay: str, base: str) -> None:
        """A snapshot: QEMU gets each whole bitmap in the new active file as well."""
        for name, state in self.bitmaps.get(base, {}).items():
            if state == WHOLE:
                self.add_bitmap(overlay, name)

    def merged_into(self, base: str, overlay: str) -> None:
        """A commit: bitmaps that were made on the overlay are in the base now."""
        for name, state in self.bitmaps.pop(overlay, {}).items():
            if name not in self.bitmaps.get(base, {}):
                self.add_bitmap(base, name)
            self.bitmaps[base][name] = state

    def qemu_was_killed(self, files: list[str]) -> None:
        """QEMU marks bitmaps in the file only when it closes the file well."""
        for file in files:
            for name in self.bitmaps.get(file, {}):
                self.bitmaps[file][name] = IN_USE

    def add_bitmap(self, file: str, name: str) -> None:
        self.bitmaps.setdefault(file, {})[name] = WHOLE
        self._really("--add", file, name)

    def drop_bitmap(self, file: str, name: str) -> None:
        del self.bitmaps[file][name]
        self._really("--remove", file, name)

    def _really(self, what: str, file: str, name: str) -> None:
        if self.are_real and is_qcow2(Path(file)):
            subprocess.run(["qemu-img", "bitmap", what, "-f", "qcow2", file, name], check=True, capture_output=True)

    def _redefine(self, root: ET.Element, name: str, targets: tuple[str, ...], is_validated: bool, *, runs: bool) -> None:
        parent = root.findtext("./parent/name")
        if parent is not None and parent not in self.records:
            raise libvirt_error(libvirt.VIR_ERR_INVALID_ARG, f"invalid argument: parent {parent} for moment {name} not found")
        if is_validated:
            if not runs:
                raise not_running()
            self._must_be_whole(name, targets)
        self.records[name] = _Record(targets, parent, int(root.findtext("creationTime") or "0"))

    def _must_be_whole(self, name: str, targets: tuple[str, ...]) -> None:
        for target in targets:
            if self._state(target, name) != WHOLE:
                raise _inconsistent(name, target)

    def _state(self, target: str, name: str) -> str | None:
        """None: the disk has no such bitmap, or the domain has no such disk any more."""
        try:
            return self.bitmaps.get(self._active_file(target), {}).get(name)
        except KeyError:
            return None

    def _record(self, name: str) -> _Record:
        if name not in self.records:
            message = f"Domain checkpoint not found: no domain checkpoint with matching name '{name}'"
            raise libvirt_error(libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT, message)
        return self.records[name]


def _inconsistent(name: str, target: str) -> Exception:
    message = f"checkpoint inconsistent: missing or broken bitmap '{name}' for disk '{target}'"
    return libvirt_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, message)


def _unsupported(text: str) -> Exception:
    return libvirt_error(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, f"Operation not supported: {text}")
