"""A host's libvirt with fake domains on it."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

from service.errors import DomainGone, LibvirtCallFailed, LibvirtUnavailable
from service.hypervisor.bounded_domain import BoundedDomain, Bounds
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from tests.fakes.definitions import disks_of
from tests.fakes.domain import CAPABILITIES, FakeDisk, FakeDomain

URI = "fake:///system"


class FakeHost(HostConnection):
    """Everything of HostConnection that the service uses, and no libvirt below it."""

    def __init__(self, *domains: FakeDomain) -> None:
        super().__init__(URI)
        self.domains = list(domains)
        #: None: calls may hang as long as they like.
        self.limits: Bounds | None = None
        self.is_away = False
        self.closed = False
        #: Each is raised by one call of `define`, which then defines nothing.
        self.define_errors: list[Exception] = []
        self.listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def change(self) -> None:
        """libvirt's event thread tells the listeners."""
        for listener in self.listeners:
            listener()

    def versions(self) -> dict[str, str]:
        self._reach()
        return {"libvirt": "9.0.0", "hypervisor": "QEMU 7.2.22", "hostname": "fake"}

    def guests(self) -> list[Guest]:
        self._reach()
        return [self._guest_of(domain) for domain in self.domains if domain.exists]

    def guest(self, name_or_uuid: str) -> Guest:
        self._reach()
        for domain in self.domains:
            if domain.exists and name_or_uuid in (domain.name(), domain.uuid()):
                return self._guest_of(domain)
        raise DomainGone(uri=URI, domain=name_or_uuid)

    def define(self, xml: str) -> Guest:
        """A domain that is not there yet is off, and its agent answers when it is started."""
        self._reach()
        self._refuse_next()
        root = ET.fromstring(xml)
        name, uuid = root.findtext("name") or "", root.findtext("uuid") or ""
        for domain in self.domains:
            if domain.exists and name == domain.name() and uuid != domain.uuid():
                text = f"operation failed: domain '{name}' already exists with uuid {domain.uuid()}"
                raise LibvirtCallFailed(call="virDomainDefineXML", libvirt_code=9, message=text)
            if domain.exists and uuid == domain.uuid():
                guest = self._guest_of(domain)
                guest.redefine(xml)
                return guest
        disks = [FakeDisk(disk.target, None) for disk in disks_of(root)]
        made = FakeDomain(name, disks, uuid_text=uuid)
        made.shut_off()
        made.define(xml)
        self.domains.append(made)
        return self._guest_of(made)

    def capabilities(self) -> str:
        self._reach()
        return CAPABILITIES

    def domain_capabilities(self, arch: str, machine: str | None, virtualization: str) -> str | None:
        self._reach()
        return None

    def _refuse_next(self) -> None:
        if self.define_errors:
            raise self.define_errors.pop(0)

    def _guest_of(self, domain: FakeDomain) -> Guest:
        return Guest(domain if self.limits is None else BoundedDomain(domain, self.limits), URI)

    def close(self) -> None:
        self.closed = True

    def _reach(self) -> None:
        if self.is_away:
            raise LibvirtUnavailable(uri=URI, reason="Failed to connect socket")
