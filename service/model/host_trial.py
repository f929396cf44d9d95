"""The results of a trial on the host: all that libvirt and QEMU will do with the overlays of a job."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from service.errors import StillpointError
from service.model.check import Check, failed, passed, warned


class Tried(StrEnum):
    """The things that are tried, in the order of a job. The values are the codes of the checks."""

    libvirt_behind_qemu = "libvirt_behind_qemu"
    image = "image"
    overlay = "overlay"
    libvirt_files = "libvirt_files"
    qemu_access = "qemu_access"
    security_driver = "security_driver"


_WELL = {
    Tried.libvirt_behind_qemu: "QEMU writes to the files that libvirt names.",
    Tried.image: "The image of each disk exists, and is the file that the domain uses.",
    Tried.overlay: "The overlays could be made in their folders, and were removed again.",
    Tried.libvirt_files: "libvirt sees the files that the worker makes.",
    Tried.qemu_access: "The user of QEMU can open the overlays.",
    Tried.security_driver: "No security driver keeps QEMU from the overlays, or libvirt labels the overlays for that driver.",
}
_UNKNOWN_REMEDIES = {
    Tried.libvirt_behind_qemu: "Solve the problem of the check before this check.",
    Tried.image: "Give the worker access to the process of QEMU: the same pid namespace, and CAP_SYS_PTRACE.",
    Tried.overlay: "Solve the problem of the check before this check.",
    Tried.libvirt_files: "Update libvirt, or let the worker call virDomainSaveImageGetXMLDesc.",
    Tried.qemu_access: "Run the worker as root with CAP_SETUID and CAP_SETGID, as the unit does.",
    Tried.security_driver: "Label the folder of the overlays by hand, so that QEMU may open new files in that folder.",
}


@dataclass
class HostTrial:
    """The results, by what was tried. A trial that was not reached has no result."""

    faults: dict[Tried, list[StillpointError]] = field(default_factory=dict)
    unknown: dict[Tried, str] = field(default_factory=dict)
    well: set[Tried] = field(default_factory=set)

    def note(self, what: Tried, *faults: StillpointError) -> None:
        """Without faults the trial passed."""
        if faults:
            self.faults.setdefault(what, []).extend(faults)
        else:
            self.well.add(what)

    def leave_open(self, what: Tried, why: str) -> None:
        self.unknown[what] = why

    @property
    def first_fault(self) -> StillpointError | None:
        return next((fault for what in Tried for fault in self.faults.get(what, ())), None)

    def checks(self) -> Iterator[Check]:
        for what in Tried:
            for fault in self.faults.get(what, ()):
                yield failed(what.value, fault.detail, fault.remedy)
            if what in self.unknown:
                yield warned(what.value, self.unknown[what], _UNKNOWN_REMEDIES[what])
            elif what in self.well:
                yield passed(what.value, _WELL[what])
