"""The overlays of a snapshot: planned and made before the freeze, removed when they were not used."""

import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from service import bounded_io, log
from service.disks import guest_data, overlay_file
from service.disks.file_identity import looks_like_ours
from service.disks.image_users import why_not_unused
from service.errors import (
    OverlayInUse,
    OverlayPreparationFailed,
    OverlayReplaced,
    OverlaysLeft,
    QemuImgUnusable,
    SpaceInsufficient,
    StillpointError,
    StorageNotAnswering,
)
from service.hypervisor.guest import Guest
from service.model.file_identity import FileIdentity
from service.model.intent import Overlay
from service.model.inventory import Disk, Space

KILL_S = 2
"""How long a qemu-img that was killed may take to die; one that hangs in the storage dies when that answers."""
_NEVER_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""What a look at a file answers that cannot exist under this name."""
_REPLACED = "it is not the file that the job made, somebody has put it in that one's place"
_OUR_SUFFIX = re.compile(r"\.[0-9a-f]{8}(-\d+)?$")


_logger = log.get(__name__)


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
    """Free space against the reserve of every overlay that will share it; one entry for each file system.

    Raises OverlayPreparationFailed, which names the folder, where it is not there or is not a folder.
    """
    needed: dict[int, tuple[Path, int]] = {}
    for disk in disks:
        folder = folder_of(disk, overlay_dir)
        device = _look_at(folder)
        first, so_far = needed.get(device, (folder, 0))
        needed[device] = (first, so_far + reserve_bytes)
    return [Space(str(folder), _free_bytes(folder), bytes_needed) for folder, bytes_needed in needed.values()]


def _look_at(folder: Path) -> int:
    """Its device."""
    try:
        found = bounded_io.answered("looking at", folder, folder.stat)
    except OSError as error:
        raise _unmade(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise OverlayPreparationFailed(path=bounded_io.printable(folder), reason="it is not a folder", errno=errno.errorcode[errno.ENOTDIR])
    return found.st_dev


def _free_bytes(folder: Path) -> int:
    try:
        return bounded_io.answered("asking for the free space of", folder, lambda: shutil.disk_usage(folder).free)
    except OSError as error:
        raise _unmade(folder, error) from error


def _unmade(path: str | Path, error: OSError) -> StillpointError:
    """`path`: the file or folder that is meant, which an OSError of a step below does not know."""
    if error.errno in bounded_io.NO_DESCRIPTORS:
        return bounded_io.refusal("making overlays in", path, error)
    return OverlayPreparationFailed(path=bounded_io.printable(path), reason=bounded_io.reason_of(error), errno=bounded_io.errno_name(error))


def check_space(found: Sequence[Space]) -> None:
    for space in found:
        if not space.is_enough:
            raise SpaceInsufficient(path=space.path, free_bytes=space.free_bytes, needed_bytes=space.needed_bytes)


def refuse_existing(overlays: Sequence[Overlay]) -> None:
    """Before the files are written down as ours: one that is there already is not, and must never be removed as ours."""
    for overlay in overlays:
        try:
            # A link that leads nowhere is there, too.
            bounded_io.answered("looking for", overlay.path, partial(os.lstat, overlay.path))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unmade(overlay.path, error) from error
        raise _exists(overlay)


def _exists(overlay: Overlay) -> OverlayPreparationFailed:
    return OverlayPreparationFailed(path=overlay.path, reason="a file of this name exists already")


def create(overlays: Sequence[Overlay]) -> list[Overlay]:
    """Make all of them, or none; the same, with the files that were made.

    Raises OverlayPreparationFailed, QemuImgUnusable, StorageRefused, StorageNotAnswering, HostOutOfDescriptors.
    """
    made: list[Overlay] = []
    try:
        for overlay in overlays:
            made.append(replace(overlay, made=_create(overlay)))
    except StillpointError as error:
        try:
            remove(made)
        except OverlaysLeft as left:
            if isinstance(error, OverlayPreparationFailed):
                raise OverlayPreparationFailed(**{**error.facts, "reason": f"{error.facts['reason']}. {left.detail}"}) from error
            _logger.error("overlays_left", paths=left.facts["paths"], reason=left.facts["reason"], after=error.detail)
        raise
    return made


def _create(overlay: Overlay) -> FileIdentity:
    # -u and an explicit size: the base is locked by QEMU while the domain runs, and need not be opened.
    options = ["-f", "qcow2", "-u", "-b", overlay.base, "-F", overlay.base_format]
    make = partial(overlay_file.make, overlay.path, overlay.base, options, overlay.virtual_size)
    try:
        return bounded_io.answered("qemu-img create", overlay.path, make, overlay_file.QEMU_IMG_TIMEOUT_S + KILL_S)
    except FileExistsError as error:
        raise _exists(overlay) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip() or f"qemu-img exited with {error.returncode}"
        raise OverlayPreparationFailed(path=overlay.path, reason=reason) from error
    except subprocess.TimeoutExpired as error:
        reason = f"qemu-img did not end within {overlay_file.QEMU_IMG_TIMEOUT_S} s"
        raise OverlayPreparationFailed(path=overlay.path, reason=reason) from error
    except OSError as error:
        raise _of_what_is_meant(overlay, error) from error


def _of_what_is_meant(overlay: Overlay, error: OSError) -> StillpointError:
    """The program, the image, or the overlay: the system says which of them it could not start or open."""
    if error.errno not in bounded_io.NO_DESCRIPTORS and error.filename == overlay_file.QEMU_IMG:
        return QemuImgUnusable(reason=bounded_io.reason_of(error))
    if error.filename == overlay.base:
        return bounded_io.refusal("looking at the image", overlay.base, error)
    return _unmade(overlay.path, error)


def must_be_there(made: Sequence[Overlay]) -> None:
    """The last look before the window: libvirt takes whatever file lies under the name. Raises OverlayPreparationFailed."""
    for overlay in made:
        try:
            found = bounded_io.answered("looking at", overlay.path, partial(os.lstat, overlay.path))
        except OSError as error:
            raise _unmade(overlay.path, error) from error
        if overlay.made is not None and not overlay.made.is_of(found):
            raise OverlayPreparationFailed(path=overlay.path, reason="another file was put in its place after it was made")


class _Kept(Exception):
    """Why a file under the name of an overlay stays, as the error that tells it and the reason in words."""

    def __init__(self, error: type[OverlaysLeft], reason: str) -> None:
        self.error, self.reason = error, reason


def remove(overlays: Sequence[Overlay], *, were_merged: bool = False) -> None:
    """Delete overlays that no disk uses. One stays that a program has open, or that a guest wrote to, whatever libvirt says of its disks.

    `were_merged`: what a guest wrote to them is in the files below. Raises OverlaysLeft, and for files that must not be deleted by hand
    OverlayReplaced or OverlayInUse; each after it tried all.
    """
    kept: dict[type[OverlaysLeft], dict[str, str]] = {}
    for overlay in overlays:
        try:
            bounded_io.answered("removing", overlay.path, partial(_unlink, overlay, were_merged=were_merged))
        except _Kept as why:
            kept.setdefault(why.error, {})[overlay.path] = why.reason
        except StorageNotAnswering as error:
            kept.setdefault(OverlaysLeft, {})[overlay.path] = error.detail.rstrip(".")
        except OSError as error:
            kept.setdefault(OverlaysLeft, {})[overlay.path] = bounded_io.reason_of(error)
    if kept:
        raise _told(kept)


def _told(kept: dict[type[OverlaysLeft], dict[str, str]]) -> OverlaysLeft:
    worst, *others = (error for error in (OverlayReplaced, OverlayInUse, OverlaysLeft) if error in kept)
    also = [f"nor was {' '.join(kept[other])} ({'; '.join(dict.fromkeys(kept[other].values()))})" for other in others]
    reason = "; ".join(dict.fromkeys(kept[worst].values()))
    return worst(paths=" ".join(kept[worst]), reason=", ".join([reason, *also]))


def _unlink(overlay: Overlay, *, were_merged: bool) -> None:
    """Raises OSError where the file stays; one that was never made is not left behind, whatever its folder says of it."""
    path = Path(overlay.path)
    try:
        found = path.lstat()
    except OSError as error:
        if error.errno in _NEVER_THERE:
            return
        raise
    if not _is_ours(overlay, path, found):
        raise _Kept(OverlayReplaced, _REPLACED)
    used = why_not_unused(overlay.path, found)
    if used is None and not were_merged and _may_have_data(path):
        used = "a guest has written to it"
    if used is not None:
        raise _Kept(OverlayInUse, used)
    path.unlink(missing_ok=True)


def _may_have_data(path: Path) -> bool:
    try:
        return guest_data.is_in(path)
    except PermissionError:
        # Whoever took it away from us may have used it.
        return True


def _is_ours(overlay: Overlay, path: Path, found: os.stat_result) -> bool:
    if overlay.made is not None:
        return overlay.made.is_of(found)
    return looks_like_ours(path, found, overlay.base)
