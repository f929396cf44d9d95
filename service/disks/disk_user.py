"""The user that opens the disks of a domain: the user of its QEMU, or of the QEMU of its next start."""

import os
from dataclasses import dataclass

from service.hypervisor import qemu_process, security_labels
from service.hypervisor.guest import Guest
from service.hypervisor.qemu_process import Credentials, QemuProcess
from service.hypervisor.security_labels import DAC, SecurityLabel
from service.model.inventory import DomainState


@dataclass(frozen=True)
class DiskUser:
    """`process` None: the domain does not run, or the worker cannot see its QEMU. `credentials` None: the user is not known."""

    is_running: bool
    process: QemuProcess | None
    credentials: Credentials | None
    #: By security model. Running: the labels that QEMU has. Shut off: the labels in the definition.
    labels: dict[str, SecurityLabel]

    @property
    def gives_files_away(self) -> bool:
        """libvirt makes QEMU's user the owner of each file before QEMU opens it."""
        dac = self.labels.get(DAC)
        return dac is None or dac.relabels

    @property
    def root(self) -> str:
        """The folder that QEMU sees as `/`; the worker's own `/` if the worker may not look there."""
        return str(self.process.root) if self.process is not None and self.process.may_be_looked_through() else "/"


def disk_user_of(guest: Guest, state: DomainState) -> DiskUser:
    """Raises the errors of libvirt's calls."""
    labels = guest.security_labels()
    named = security_labels.user_of(labels[DAC].label) if DAC in labels else None
    if state is DomainState.shut_off:
        return DiskUser(is_running=False, process=None, credentials=named or _next_user(guest), labels=labels)
    process = qemu_process.find(guest.uuid, named.uid if named is not None else None)
    credentials = process.credentials if process is not None else named or _own()
    return DiskUser(is_running=True, process=process, credentials=credentials, labels=labels)


def _next_user(guest: Guest) -> Credentials | None:
    driver = guest.security_drivers().get(DAC)
    return security_labels.user_of(driver.label) if driver is not None else _own()


def _own() -> Credentials | None:
    """A session's libvirt runs QEMU as its own user. The worker runs as that user, too."""
    return Credentials(os.geteuid(), os.getegid(), tuple(os.getgroups())) if os.geteuid() != 0 else None
