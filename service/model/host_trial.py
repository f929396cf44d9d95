"""What came of trying, on the host, all that libvirt and QEMU will do with the overlays of a job."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from service.errors import StillpointError
from service.model.check import Check, failed, passed, warned


class Tried(StrEnum):
    """In the order in which a job meets them; the values are the codes of the checks."""

    image = "image"
    overlay = "overlay"
    libvirt_files = "libvirt_files"
    qemu_access = "qemu_access"
    security_driver = "security_driver"


_WELL = {
    Tried.image: "The image of each disk is there, and is the file that the domain uses.",
    Tried.overlay: "The overlays could be made where the job makes them, and were removed again.",
    Tried.libvirt_files: "libvirt sees the files that the worker makes.",
    Tried.qemu_access: "The user of QEMU can open the overlays.",
    Tried.security_driver: "No other security driver stands between QEMU and the overlays, or libvirt labels them for it.",
}
_UNKNOWN_REMEDIES = {
    Tried.image: "Let the worker see the process of QEMU: the same pid namespace, CAP_SYS_PTRACE.",
    Tried.overlay: "Mend what failed before it.",
    Tried.libvirt_files: "Update libvirt, or let the worker call virDomainSaveImageGetXMLDesc.",
    Tried.qemu_access: "Run the worker as root with CAP_SETUID and CAP_SETGID, as the unit does.",
    Tried.security_driver: "Label the folder of the overlays by hand, so that QEMU may open new files there.",
}


@dataclass
class HostTrial:
    """By what was tried; what is in none of the three was not come to."""

    faults: dict[Tried, list[StillpointError]] = field(default_factory=dict)
    unknown: dict[Tried, str] = field(default_factory=dict)
    well: set[Tried] = field(default_factory=set)

    def note(self, what: Tried, *faults: StillpointError) -> None:
        """No faults: it went well."""
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
