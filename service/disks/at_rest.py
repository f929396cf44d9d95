"""Checks that only the domain's own QEMU writes to the files of its disks. Files that another program writes to are not a point in time."""

from collections.abc import Callable, Sequence

from service.disks.image_users import writer_of
from service.errors import CheckpointsInTheWay, DomainStateUnsuitable, ImageInUse, SavedStateWaits, StillpointError
from service.hypervisor.checkpoints import is_ours
from service.hypervisor.guest import Guest
from service.model.inventory import Disk

GuestsOfHost = Callable[[], Sequence[Guest]]


def no_others() -> Sequence[Guest]:
    return ()


def why_not_at_rest(guest: Guest, taken: Sequence[Disk], guests: GuestsOfHost) -> StillpointError | None:
    """The first reason; None: only the guest is seen to write to the disks. Raises LibvirtUnavailable, StorageNotAnswering."""
    if guest.is_shut_off():
        if guest.was_migrated_away():
            where = "shut off here because it was migrated, and may run on another host with the same disks"
            return DomainStateUnsuitable(domain=guest.name, state=where)
        if guest.has_managed_save():
            return SavedStateWaits(domain=guest.name)
        # Ours are set aside for the snapshot.
        checkpoints = [name for name in guest.checkpoint_names() if not is_ours(name)]
        if checkpoints:
            return CheckpointsInTheWay(domain=guest.name, checkpoints=", ".join(checkpoints))
    written = writer_of(guest, files_of(taken), guests)
    return ImageInUse(domain=guest.name, file=written[0], holder=written[1]) if written is not None else None


def files_of(taken: Sequence[Disk]) -> list[str]:
    """The active files of the disks and the files below, as far as their headers were read."""
    return [file for disk in taken for file in (disk.image.files if disk.image else ())]
