"""Who opens the disks of a domain: its QEMU, or the one of its next start."""

import os
from dataclasses import dataclass

from service.hypervisor import qemu_process, security_labels
from service.hypervisor.guest import Guest
from service.hypervisor.qemu_process import Credentials, QemuProcess
from service.hypervisor.security_labels import DAC, SecurityLabel
from service.model.inventory import DomainState


@dataclass(frozen=True)
class DiskUser:
    """`process` None: the domain does not run, or its QEMU is not seen from here. `credentials` None: nobody says who it is."""

    is_running: bool
    process: QemuProcess | None
    credentials: Credentials | None
    #: By model: what stands in the definition, or of the running domain what its QEMU has.
    labels: dict[str, SecurityLabel]

    @property
    def gives_files_away(self) -> bool:
        """libvirt makes QEMU's user the owner of each file before QEMU opens it."""
        dac = self.labels.get(DAC)
        return dac is None or dac.relabels

    @property
    def root(self) -> str:
        """What the QEMU sees as `/`, where the worker may look through its eyes."""
        return str(self.process.root) if self.process is not None and self.process.may_be_looked_through() else "/"


def disk_user_of(guest: Guest, state: DomainState) -> DiskUser:
    """Raises what libvirt's calls raise."""
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
    """A session's libvirt runs QEMU as its own user, who is ours."""
    return Credentials(os.geteuid(), os.getegid(), tuple(os.getgroups())) if os.geteuid() != 0 else None
