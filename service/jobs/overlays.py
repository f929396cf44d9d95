"""The overlays of a snapshot: planned and made before the freeze, removed when they were not used."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service.errors import OverlayPreparationFailed, OverlaysLeft, SpaceInsufficient, StorageNotAnswering
from service.hypervisor.guest import Guest
from service.jobs import overlay_file, storage
from service.model.inventory import Disk, Space

KILL_S = 2
"""How long a qemu-img that was killed may take to die; one that hangs in the storage dies when that answers."""
_OUR_SUFFIX = re.compile(r"\.[0-9a-f]{8}(-\d+)?$")


@dataclass(frozen=True)
class Overlay:
    """`base` becomes the recovery point, `path` is where the guest writes from the point in time on."""

    target: str
    base: str
    base_format: str
    path: str
    virtual_size: int

    def is_in_use(self, source: str | None) -> bool | None:
        """For the file that the disk is on now. None: neither this overlay nor its base; another overlay may lie on top of this one."""
        if source == self.path:
            return True
        return False if source == self.base else None

    def as_document(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "base": self.base,
            "base_format": self.base_format,
            "overlay": self.path,
            "virtual_size": self.virtual_size,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Overlay":
        return cls(document["target"], document["base"], document["base_format"], document["overlay"], document["virtual_size"])


def plan(guest: Guest, disks: Sequence[Disk], job_id: str, attempt: int, overlay_dir: Path | None) -> list[Overlay]:
    """One overlay for each disk, named after the disk, the job and the attempt. Nothing is made yet."""
    mark = job_id[:8] if attempt <= 1 else f"{job_id[:8]}-{attempt}"
    overlays: list[Overlay] = []
    for disk in disks:
        assert disk.source is not None
        assert disk.format is not None
        path = folder_of(disk, overlay_dir) / f"{_stem(disk)}.{mark}.qcow2"
        if any(overlay.path == str(path) for overlay in overlays):
            # /system/vm.qcow2 and /data/vm.qcow2 whose overlays go to one folder.
            path = path.with_name(f"{_stem(disk)}-{disk.target}.{mark}.qcow2")
        overlays.append(Overlay(disk.target, disk.source, disk.format, str(path), guest.capacity(disk.target)))
    return overlays


def _stem(disk: Disk) -> str:
    """vm.qcow2 and vm.1a2b3c4d.qcow2 are both `vm`: the name does not grow with the chain."""
    return _OUR_SUFFIX.sub("", Path(disk.source or disk.target).stem)


def folder_of(disk: Disk, overlay_dir: Path | None) -> Path:
    return overlay_dir or Path(disk.source or "/").parent


def spaces(disks: Sequence[Disk], overlay_dir: Path | None, reserve_bytes: int) -> list[Space]:
    """Free space against the reserve of every overlay that will share it; one entry for each file system."""
    needed: dict[int, tuple[Path, int]] = {}
    for disk in disks:
        folder = folder_of(disk, overlay_dir)
        try:
            device = storage.answered("looking at", folder, folder.stat).st_dev
        except OSError as error:
            raise OverlayPreparationFailed(path=str(folder), reason=error.strerror or str(error)) from error
        first, so_far = needed.get(device, (folder, 0))
        needed[device] = (first, so_far + reserve_bytes)
    return [Space(str(folder), _free_bytes(folder), bytes_needed) for folder, bytes_needed in needed.values()]


def _free_bytes(folder: Path) -> int:
    return storage.answered("asking for the free space of", folder, lambda: shutil.disk_usage(folder).free)


def check_space(found: Sequence[Space]) -> None:
    for space in found:
        if not space.is_enough:
            raise SpaceInsufficient(path=space.path, free_bytes=space.free_bytes, needed_bytes=space.needed_bytes)


def refuse_existing(overlays: Sequence[Overlay]) -> None:
    """Before the files are written down as ours: one that is there already is not, and must never be removed as ours."""
    for overlay in overlays:
        # A link that leads nowhere is there, too.
        if storage.answered("looking for", overlay.path, partial(os.path.lexists, overlay.path)):
            raise _exists(overlay)


def _exists(overlay: Overlay) -> OverlayPreparationFailed:
    return OverlayPreparationFailed(path=overlay.path, reason="a file of this name exists already")


def create(overlays: Sequence[Overlay]) -> None:
    """Make all of them, or none. Raises OverlayPreparationFailed."""
    made: list[Overlay] = []
    try:
        for overlay in overlays:
            _create(overlay)
            made.append(overlay)
    except OverlayPreparationFailed as error:
        try:
            remove(made)
        except OverlaysLeft as left:
            raise OverlayPreparationFailed(path=error.facts["path"], reason=f"{error.facts['reason']}. {left.detail}") from error
        raise


def _create(overlay: Overlay) -> None:
    # -u and an explicit size: the base is locked by QEMU while the domain runs, and need not be opened.
    options = ["-f", "qcow2", "-u", "-b", overlay.base, "-F", overlay.base_format]
    make = partial(overlay_file.make, overlay.path, overlay.base, options, overlay.virtual_size)
    try:
        storage.answered("qemu-img create", overlay.path, make, overlay_file.QEMU_IMG_TIMEOUT_S + KILL_S)
    except FileExistsError as error:
        raise _exists(overlay) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip() or f"qemu-img exited with {error.returncode}"
        raise OverlayPreparationFailed(path=overlay.path, reason=reason) from error
    except subprocess.TimeoutExpired as error:
        reason = f"qemu-img did not end within {overlay_file.QEMU_IMG_TIMEOUT_S} s"
        raise OverlayPreparationFailed(path=overlay.path, reason=reason) from error
    except OSError as error:
        raise OverlayPreparationFailed(path=overlay.path, reason=error.strerror or str(error)) from error


def remove(overlays: Sequence[Overlay]) -> None:
    """Delete overlays that no disk uses; the caller has looked (`Guest.settled_sources`). Raises OverlaysLeft, after it tried all."""
    left, reasons = [], []
    for overlay in overlays:
        try:
            storage.answered("removing", overlay.path, partial(Path(overlay.path).unlink, missing_ok=True))
        except (OSError, StorageNotAnswering) as error:
            left.append(overlay.path)
            reasons.append(error.detail.rstrip(".") if isinstance(error, StorageNotAnswering) else error.strerror or str(error))
    if left:
        raise OverlaysLeft(paths=" ".join(left), reason="; ".join(dict.fromkeys(reasons)))
