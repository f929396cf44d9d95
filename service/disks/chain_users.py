"""Whether files of a disk's chain may be merged into each other: only the domain itself may need them, now and at its next start."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from service import bounded_io
from service.disks import disk_images, two_views
from service.disks.disk_user import disk_user_of
from service.disks.image_users import writer_of
from service.disks.merging import MergeImpossible
from service.errors import DomainBusy, DomainGone, DomainStateUnsuitable, ImageInUse, LibvirtUnavailable
from service.hypervisor.guest import Guest
from service.model import image_header
from service.model.intent import Overlay

GuestsOfHost = Callable[[], Sequence[Guest]]


def must_be_at_home(guest: Guest) -> None:
    """Raises DomainBusy, DomainStateUnsuitable, MergeImpossible: another host, a saved state or libvirt itself may need the files."""
    if guest.was_migrated_away():
        where = "shut off here because it was migrated, and may run on another host with the same disks"
        raise DomainStateUnsuitable(domain=guest.name, state=where)
    if guest.is_moving():
        raise DomainBusy(domain=guest.name, what="it is being migrated, saved or restored")
    if guest.is_shut_off() and guest.has_managed_save():
        raise _impossible(guest, "all disks", "the domain has a managed save, which needs the files as they are: start the domain first")
    if names := guest.snapshot_names():
        raise _impossible(guest, "all disks", f"libvirt has snapshots that may name the files: {', '.join(names)}")


def must_be_known_to_libvirt(guest: Guest, targets: Sequence[str]) -> None:
    """Raises LibvirtBehindQemu: libvirt would merge the files that it names, and QEMU writes to another one."""
    disks = [disk for disk in guest.disks() if disk.target in targets]
    two_views.must_agree(guest.name, disks, disk_user_of(guest, guest.state()))


def must_not_shrink(guest: Guest, link: Overlay) -> None:
    """A disk that was made smaller after the point: its file below would stay as large as it was, and the guest would see that."""
    size = bounded_io.translated_call("reading the header of", Path(link.path), lambda: _virtual_size(link.path))
    if size is not None and size < link.virtual_size:
        raise _impossible(guest, link.target, f"{link.path} has {size} bytes, and the disk had {link.virtual_size} at the point")


def must_be_ours_alone(guest: Guest, files: Sequence[str], guests: GuestsOfHost) -> None:
    """Raises ImageInUse. The domains that have one of the files below a disk are told by `domains_on`."""
    written = writer_of(guest, files, guests)
    if written is not None:
        raise ImageInUse(domain=guest.name, file=written[0], holder=written[1])


def domains_on(guest: Guest, files: Sequence[str], guests: GuestsOfHost) -> dict[str, list[str]]:
    """By file: the other domains that have it as a disk or below one, whether they run or not. Raises LibvirtUnavailable and others."""
    wanted = {os.path.realpath(path): path for path in files}
    domains: dict[str, list[str]] = {}
    for other in guests():
        if other.uuid == guest.uuid:
            continue
        for path in {wanted[named] for named in _files_of(other) if named in wanted}:
            domains.setdefault(path, []).append(other.name)
    return domains


def _files_of(other: Guest) -> Iterator[str]:
    try:
        disks = other.disks()
        saved = other.persistent_sources().values() if other.is_persistent() else ()
    except LibvirtUnavailable:
        raise
    except DomainGone:
        return
    for disk in disk_images.examined(disks):
        below = disk.image.files if disk.image is not None else ()
        yield from (os.path.realpath(path) for path in {disk.source, *disk.chain, *below} if path is not None and path.startswith("/"))
    yield from (os.path.realpath(path) for path in saved if path is not None and path.startswith("/"))


def _virtual_size(path: str) -> int | None:
    with Path(path).open("rb") as file:
        header = image_header.parse(file.read(image_header.READ_BYTES))
    return header.virtual_size if header is not None else None


def _impossible(guest: Guest, target: str, reason: str) -> MergeImpossible:
    return MergeImpossible(domain=guest.name, target=target, reason=reason)
