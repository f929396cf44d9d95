"""Compares the files that QEMU has open with the files that libvirt names.

If libvirtd is killed after QEMU switched a disk to its overlay and before libvirt saved that, libvirt names the file below for ever.
The file that QEMU has open for writing is the true file of a disk.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from service import bounded_io
from service.disks import guest_data, image_lock
from service.disks.disk_user import DiskUser, disk_user_of
from service.errors import LibvirtBehindQemu, StorageNotAnswering
from service.hypervisor.guest import Guest
from service.hypervisor.qemu_process import OpenFile
from service.model import image_header
from service.model.intent import Overlay
from service.model.inventory import Disk

_MAX_DEPTH = 512
"""Files of a chain that are read. Beyond them a chain counts as not standing on the file that is looked for."""
UNSEEN = "a file that the worker cannot see"


@dataclass(frozen=True)
class QemuView:
    """`opened` None: the worker cannot see QEMU or its open files. The locks of the images are then asked instead."""

    is_running: bool
    opened: Sequence[OpenFile] | None

    @classmethod
    def of(cls, user: DiskUser) -> "QemuView":
        return cls(user.is_running, user.process.open_files() if user.process is not None else None)

    def writes(self, path: str) -> bool:
        with suppress(OSError, StorageNotAnswering, image_lock.HeldByHost):
            if self.opened is None:
                return bounded_io.call("asking for locks of", path, partial(image_lock.read, path)).is_written
            status = bounded_io.call("looking at", path, Path(path).stat)
            return any(file.is_written and is_same(status, file.status) for file in self.opened)
        return False


def is_same(status: os.stat_result, other: os.stat_result) -> bool:
    if stat.S_ISBLK(status.st_mode):
        # libvirt makes a device node for each domain, so the inodes differ.
        return stat.S_ISBLK(other.st_mode) and status.st_rdev == other.st_rdev
    return os.path.samestat(status, other)


class DiskPositions:
    """Whether disks are on their planned overlays. QEMU is looked at only for a disk of which libvirt names the file below."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        #: Disks that QEMU has on their overlay while libvirt names the file below.
        self.behind: list[Overlay] = []

    def is_on(self, overlay: Overlay, named: str | None) -> bool | None:
        """As `Overlay.is_in_use`. `named`: the file that libvirt names. None also if the views do not show where the disk is.

        Raises the errors of libvirt's calls.
        """
        is_on = overlay.is_in_use(named)
        if is_on is False:
            is_on = self._is_on_although_unnamed(overlay)
            self.behind += [overlay] if is_on else []
        return is_on

    @cached_property
    def _view(self) -> QemuView:
        return QemuView.of(disk_user_of(self._guest, self._guest.state()))

    def _is_on_although_unnamed(self, overlay: Overlay) -> bool | None:
        view = self._view
        above, below = view.writes(overlay.path), view.writes(overlay.base)
        if above and not below:
            return True
        if not _has_data(overlay.path):
            # libvirtd was killed before the switch: QEMU has opened the overlay, and no disk writes to it.
            return False
        if above:
            return None
        if below:
            # The domain was started since then, and that start used the file that libvirt names.
            return False
        return True if not view.is_running and _is_later(overlay.path, overlay.base) else None


def _has_data(path: str) -> bool:
    try:
        return bounded_io.call("reading the tables of", path, partial(guest_data.is_in, path))
    except (OSError, StorageNotAnswering):
        # Removing the overlay fails in the same way, so the overlay stays.
        return False


def _is_later(path: str, other: str) -> bool:
    """Nothing was written to `other` after the last write to `path`."""
    try:
        return bounded_io.call("looking at", path, lambda: Path(path).stat().st_mtime_ns >= Path(other).stat().st_mtime_ns)
    except (OSError, StorageNotAnswering):
        return False


def error_of(guest: Guest, behind: Sequence[Overlay]) -> LibvirtBehindQemu:
    def joined(parts: Iterator[str]) -> str:
        return ", ".join(parts)

    return LibvirtBehindQemu(
        domain=guest.name,
        disk=joined(overlay.target for overlay in behind),
        libvirt_file=joined(overlay.base for overlay in behind),
        qemu_file=joined(overlay.path for overlay in behind),
    )


# --- for disks of which no overlay is planned -------------------------------------------------------


def must_agree(domain: str, disks: Sequence[Disk], user: DiskUser) -> None:
    """Raises the first of `faults`."""
    for fault in faults(domain, disks, user):
        raise fault


def faults(domain: str, disks: Sequence[Disk], user: DiskUser) -> Iterator[LibvirtBehindQemu]:
    """One fault for each disk that QEMU has on a file above the file that libvirt names. Other disks agree, or cannot be compared."""
    view = QemuView.of(user)
    for disk in disks if view.is_running else ():
        if disk.why_not is None and (fault := _why_behind(domain, disk, view)) is not None:
            yield fault


def _why_behind(domain: str, disk: Disk, view: QemuView) -> LibvirtBehindQemu | None:
    source = disk.source
    if source is None or not source.startswith("/"):
        return None
    above = _unseen_above(source) if view.opened is None else _above(source, view)
    return LibvirtBehindQemu(domain=domain, disk=disk.target, libvirt_file=source, qemu_file=above) if above is not None else None


def _unseen_above(source: str) -> str | None:
    """If the file of a running domain's disk is open, but not for writing, the file has become one below the active file."""
    with suppress(OSError, StorageNotAnswering, image_lock.HeldByHost):
        lock = bounded_io.call("asking for locks of", source, partial(image_lock.read, source))
        return UNSEEN if lock.is_open and not lock.is_written else None
    return None


def _above(source: str, view: QemuView) -> str | None:
    try:
        status = bounded_io.call("looking at", source, Path(source).stat)
    except (OSError, StorageNotAnswering):
        return None
    source_is_written = view.writes(source)
    for file in view.opened or ():
        if not file.is_written or not stat.S_ISREG(file.status.st_mode) or is_same(status, file.status):
            continue
        with suppress(OSError, StorageNotAnswering):
            stands = bounded_io.call("reading the header of", file.name, partial(_stands_on, file, status))
            # If QEMU writes to the disk and the overlay is open but empty, the disk was never switched to the overlay.
            if stands and not (source_is_written and not _has_data(str(file.link))):
                return file.name
    return None


def _stands_on(file: OpenFile, source: os.stat_result) -> bool:
    """Raises OSError."""
    path, opened = file.name, file.link
    for _ in range(_MAX_DEPTH):
        with opened.open("rb") as image:
            header = image_header.parse(image.read(image_header.READ_BYTES))
        if header is None or header.below is None:
            return False
        path = os.path.join(os.path.dirname(path), header.below)  # noqa: PTH118, PTH120 - as QEMU joins them
        opened = Path(path)
        if is_same(opened.stat(), source):
            return True
    return False
