"""The overlays of a snapshot. They are planned and made before the freeze, and removed if they were not used."""

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
"""Seconds for a killed qemu-img to die. After that the call is given up; a qemu-img that waits for the storage dies when it answers."""
_NEVER_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""Errors that say: no file can exist under this name."""
_REPLACED = "the file is not the one that the job made: another program has replaced it"
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
            # The overlays of /system/vm.qcow2 and /data/vm.qcow2 may go to the same folder.
            path = path.with_name(f"{_stem(disk)}-{disk.target}.{mark}.qcow2")
        overlays.append(Overlay(disk.target, disk.source, disk.format, str(path), guest.capacity(disk.target)))
    return overlays


def _stem(disk: Disk) -> str:
    """`vm` for both vm.qcow2 and vm.1a2b3c4d.qcow2, so that the name does not grow with the chain."""
    return _OUR_SUFFIX.sub("", Path(disk.source or disk.target).stem)


def folder_of(disk: Disk, overlay_dir: Path | None) -> Path:
    return overlay_dir or Path(disk.source or "/").parent


def spaces(disks: Sequence[Disk], overlay_dir: Path | None, reserve_bytes: int) -> list[Space]:
    """For each file system: its free space, and the reserve of all overlays that will share it.

    Raises OverlayPreparationFailed, which names the folder, if the folder does not exist or is not a folder.
    """
    needed: dict[int, tuple[Path, int]] = {}
    for disk in disks:
        folder = folder_of(disk, overlay_dir)
        device = _device_of(folder)
        first, bytes_needed = needed.get(device, (folder, 0))
        needed[device] = (first, bytes_needed + reserve_bytes)
    return [Space(str(folder), _free_bytes(folder), bytes_needed) for folder, bytes_needed in needed.values()]


def _device_of(folder: Path) -> int:
    try:
        status = bounded_io.call("looking at", folder, folder.stat)
    except OSError as error:
        raise _unmade(folder, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise OverlayPreparationFailed(path=bounded_io.printable(folder), reason="it is not a folder", errno=errno.errorcode[errno.ENOTDIR])
    return status.st_dev


def _free_bytes(folder: Path) -> int:
    try:
        return bounded_io.call("asking for the free space of", folder, lambda: shutil.disk_usage(folder).free)
    except OSError as error:
        raise _unmade(folder, error) from error


def _unmade(path: str | Path, error: OSError) -> StillpointError:
    """`path`: the overlay or folder that the caller needs. The OSError may name another file."""
    if error.errno in bounded_io.NO_DESCRIPTORS:
        return bounded_io.refusal("making overlays in", path, error)
    return OverlayPreparationFailed(path=bounded_io.printable(path), reason=bounded_io.reason_of(error), errno=bounded_io.errno_name(error))


def check_space(spaces: Sequence[Space]) -> None:
    for space in spaces:
        if not space.is_enough:
            raise SpaceInsufficient(path=space.path, free_bytes=space.free_bytes, needed_bytes=space.needed_bytes)


def refuse_existing(overlays: Sequence[Overlay]) -> None:
    """Called before the intent names the files: a file that exists already is not ours, and must never be removed as ours."""
    for overlay in overlays:
        try:
            # lstat, because a dangling symlink takes the name, too.
            bounded_io.call("looking for", overlay.path, partial(os.lstat, overlay.path))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unmade(overlay.path, error) from error
        raise _exists(overlay)


def _exists(overlay: Overlay) -> OverlayPreparationFailed:
    return OverlayPreparationFailed(path=overlay.path, reason="a file of this name exists already", errno=errno.errorcode[errno.EEXIST])


def create(overlays: Sequence[Overlay]) -> list[Overlay]:
    """Make all overlays, or none. Returns the overlays with the identities of their files.

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
    # -u and an explicit size, so that qemu-img does not open the base: QEMU locks the base while the domain runs.
    options = ["-f", "qcow2", "-u", "-b", overlay.base, "-F", overlay.base_format]
    make = partial(overlay_file.make, overlay.path, overlay.base, options, overlay.virtual_size)
    try:
        return bounded_io.call("qemu-img create", overlay.path, make, overlay_file.QEMU_IMG_TIMEOUT_S + KILL_S)
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
    """An error of the program, of the image, or of the overlay: the OSError names the file that could not be started or opened."""
    if error.errno not in bounded_io.NO_DESCRIPTORS and error.filename == overlay_file.QEMU_IMG:
        return QemuImgUnusable(reason=bounded_io.reason_of(error))
    if error.filename == overlay.base:
        return bounded_io.refusal("looking at the image", overlay.base, error)
    return _unmade(overlay.path, error)


def must_be_there(made: Sequence[Overlay]) -> None:
    """The last check before the window, because libvirt takes any file that has the name. Raises OverlayPreparationFailed."""
    for overlay in made:
        try:
            status = bounded_io.call("looking at", overlay.path, partial(os.lstat, overlay.path))
        except OSError as error:
            raise _unmade(overlay.path, error) from error
        if overlay.made is not None and not overlay.made.is_of(status):
            raise OverlayPreparationFailed(path=overlay.path, reason="another program replaced the file after it was made")


class _MustStay(Exception):
    """Why a file under the name of an overlay is not removed: the class of the error to raise, and the reason in words."""

    def __init__(self, error: type[OverlaysLeft], reason: str) -> None:
        self.error, self.reason = error, reason


def remove(overlays: Sequence[Overlay], *, were_merged: bool = False) -> None:
    """Delete overlays that no disk uses. A file stays if a program has it open or a guest wrote to it, whatever libvirt says.

    `were_merged`: the guest's data of the overlays is in the files below. All files are tried before an error is raised: OverlaysLeft, or
    for files that must not be deleted by hand OverlayReplaced or OverlayInUse.
    """
    kept: dict[type[OverlaysLeft], dict[str, str]] = {}
    for overlay in overlays:
        try:
            bounded_io.call("removing", overlay.path, partial(_unlink, overlay, were_merged=were_merged))
        except _MustStay as why:
            kept.setdefault(why.error, {})[overlay.path] = why.reason
        except StorageNotAnswering as error:
            kept.setdefault(OverlaysLeft, {})[overlay.path] = error.detail.rstrip(".")
        except OSError as error:
            kept.setdefault(OverlaysLeft, {})[overlay.path] = bounded_io.reason_of(error)
    if kept:
        raise _error_of(kept)


def _error_of(kept: dict[type[OverlaysLeft], dict[str, str]]) -> OverlaysLeft:
    worst, *others = (error for error in (OverlayReplaced, OverlayInUse, OverlaysLeft) if error in kept)
    also = [f"nor was {' '.join(kept[other])} ({'; '.join(dict.fromkeys(kept[other].values()))})" for other in others]
    reason = "; ".join(dict.fromkeys(kept[worst].values()))
    return worst(paths=" ".join(kept[worst]), reason=", ".join([reason, *also]))


def _unlink(overlay: Overlay, *, were_merged: bool) -> None:
    """Raises OSError if the file stays. A file that cannot exist under this name was never made, and is not an error."""
    path = Path(overlay.path)
    try:
        status = path.lstat()
    except OSError as error:
        if error.errno in _NEVER_THERE:
            return
        raise
    if not _is_ours(overlay, path, status):
        raise _MustStay(OverlayReplaced, _REPLACED)
    used = why_not_unused(overlay.path, status)
    if used is None and not were_merged and _may_have_data(path):
        used = "a guest has written to it"
    if used is not None:
        raise _MustStay(OverlayInUse, used)
    path.unlink(missing_ok=True)


def _may_have_data(path: Path) -> bool:
    try:
        return guest_data.is_in(path)
    except PermissionError:
        # Another program changed the owner or mode of the file, and may have used it.
        return True


def _is_ours(overlay: Overlay, path: Path, status: os.stat_result) -> bool:
    if overlay.made is not None:
        return overlay.made.is_of(status)
    return looks_like_ours(path, status, overlay.base)
