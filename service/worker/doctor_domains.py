"""Checks that libvirt names the files that the disks of its running domains are on."""

from collections.abc import Iterator, Sequence

from service.config import Settings
from service.disks import two_views
from service.disks.disk_user import disk_user_of
from service.errors import DomainGone, LibvirtUnavailable, StillpointError
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.worker.finding import Finding, Health


def examine(settings: Settings) -> Iterator[Finding]:
    connection = HostConnection(settings.libvirt_uri)
    try:
        yield from look_at(connection.guests())
    except LibvirtUnavailable:
        # The finding about libvirt itself has said so.
        return
    finally:
        connection.close()


def look_at(guests: Sequence[Guest]) -> Iterator[Finding]:
    """Raises LibvirtUnavailable."""
    is_well = True
    for guest in guests:
        try:
            for fault in two_views.faults(guest.name, guest.disks(), disk_user_of(guest, guest.state())):
                is_well = False
                yield Finding(Health.fail, "disks", fault.detail, fault.remedy)
        except LibvirtUnavailable:
            raise
        except DomainGone:
            continue
        except StillpointError as error:
            is_well = False
            yield Finding(Health.warn, "disks", f"{guest.name}: {error.detail}", error.remedy)
    if is_well:
        yield Finding(Health.ok, "disks", "QEMU writes to the files that libvirt names")
