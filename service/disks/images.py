"""Checks the images of a job's disks before the job makes anything: each image exists, and is the file that the guest writes to."""

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
    """The reasons why a point cannot stand on an image or on a file below an image."""
    opened = QemuView.of(user).opened
    for disk in disks:
        for path in (disk.source or "", *disk.chain):
            fault = _fault(domain, disk, path, opened)
            if fault is not None:
                yield fault


def _fault(domain: str, disk: Disk, path: str | None, opened: Sequence[OpenFile] | None) -> StillpointError | None:
    if path is None or not path.startswith("/"):
        # A file below the disk that is on the network, or in a pool.
        return None
    try:
        status = bounded_io.call("looking at the image", path, Path(path).stat)
    except OSError as error:
        if error.errno in bounded_io.NO_DESCRIPTORS:
            return bounded_io.refusal("looking at the image", path, error)
        facts = {"path": path, "domain": domain, "disk": disk.target, "errno": bounded_io.errno_name(error)}
        if opened is not None and _has_deleted(path, opened):
            return DiskImageDeleted(path=path, domain=domain, disk=disk.target, reason="it was deleted")
        return DiskImageMissing(reason=bounded_io.reason_of(error), **facts)
    except StillpointError as error:
        return error
    # QEMU always holds the active file open. It need not hold the files below open.
    if opened and path == disk.source and not any(is_same(status, file.status) for file in opened):
        why = "another file has this name now" if _has_deleted(path, opened) else "the worker sees another file under this name"
        return DiskImageDeleted(path=path, domain=domain, disk=disk.target, reason=why)
    return None


def _has_deleted(path: str | None, opened: Sequence[OpenFile]) -> bool:
    return any(file.name == f"{path}{_DELETED}" for file in opened)
