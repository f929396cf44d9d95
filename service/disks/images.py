"""The images of the disks of a job, looked at before anything is made: each is there, and is the file that the guest writes into."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from service import bounded_io
from service.disks.disk_user import DiskUser
from service.disks.two_views import QemuView, is_same
from service.errors import DiskImageDeleted, DiskImageMissing, StillpointError
from service.hypervisor.qemu_process import OpenFile
from service.model.inventory import Disk

_DELETED = " (deleted)"


def refuse_missing(domain: str, disks: Sequence[Disk], user: DiskUser) -> None:
    """Raises the first of `faults`."""
    for fault in faults(domain, disks, user):
        raise fault


def faults(domain: str, disks: Sequence[Disk], user: DiskUser) -> Iterator[StillpointError]:
    """What keeps each image, and each file below it, from being what a point can stand on."""
    opened = QemuView.of(user).opened
    for disk in disks:
        for path in (disk.source or "", *disk.chain):
            fault = _fault(domain, disk, path, opened)
            if fault is not None:
                yield fault


def _fault(domain: str, disk: Disk, path: str | None, opened: Sequence[OpenFile] | None) -> StillpointError | None:
    if path is None or not path.startswith("/"):
        # Below the disk: on the network, or of a pool.
        return None
    try:
        found = bounded_io.answered("looking at the image", path, Path(path).stat)
    except OSError as error:
        if error.errno in bounded_io.NO_DESCRIPTORS:
            return bounded_io.refusal("looking at the image", path, error)
        facts = {"path": path, "domain": domain, "disk": disk.target, "errno": bounded_io.errno_name(error)}
        if opened is not None and _has_deleted(path, opened):
            return DiskImageDeleted(path=path, domain=domain, disk=disk.target, reason="it was deleted")
        return DiskImageMissing(reason=bounded_io.reason_of(error), **facts)
    except StillpointError as error:
        return error
    # A file below the active one may be one that QEMU need not hold open; the active one it does.
    if opened and path == disk.source and not any(is_same(found, file.found) for file in opened):
        why = "another file has its name now" if _has_deleted(path, opened) else "the worker sees another file under this name"
        return DiskImageDeleted(path=path, domain=domain, disk=disk.target, reason=why)
    return None


def _has_deleted(path: str | None, opened: Sequence[OpenFile]) -> bool:
    return any(file.name == f"{path}{_DELETED}" for file in opened)
