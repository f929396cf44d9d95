"""The step that takes a sealed point out of the repository: one rename, then its files.

After the rename nobody takes the folder for a point. A process that dies in between leaves a folder that the next removal, or a sweep
after a day, removes.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from service import bounded_io
from service.errors import ForeignEntry, PointNeeded
from service.model.image_header import READ_BYTES, parse
from service.repository import failures, places
from service.repository.folder import must_be
from service.repository.partial import DOMAINS
from service.repository.report import Report

REMOVED_PREFIX = ".removed-"
"""The start of the name of a folder that was a point."""


def remove_point(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """A point that is not there is removed already. Returns the bytes that its files took.

    Raises PointNeeded: an image of another point, or of a point that is being made, stands on it, whichever service it belongs to.
    """
    path, folder = arguments["path"], arguments["folder"]
    domain, name = of_point(folder)
    with places.opened_folder(path) as root:
        # Below a share that is not mounted no point is there, and none of them was removed.
        must_be(root, path, arguments.get("id"))
    try:
        with places.opened_folder(path, domain) as parent:
            if is_folder(parent, name):
                if needed_by := sorted(_standing_on(path, domain, name, report)):
                    raise PointNeeded(point=folder, needed_by=needed_by)
                _set_aside(parent, name, Path(path, folder), report)
            freed = remove_folder(parent, f"{REMOVED_PREFIX}{name}", Path(path, domain, f"{REMOVED_PREFIX}{name}"), report)
    except FileNotFoundError:
        return {"freed_bytes": 0}
    return {"freed_bytes": freed}


def remove_left(parent: int, shown: Path, before: float, report: Report) -> None:
    """Remove what removals that died have left in the folder of a domain, unless it was changed after `before` (seconds of the epoch)."""
    for name in places.names(parent):
        with suppress(FileNotFoundError):
            if name.startswith(REMOVED_PREFIX) and os.lstat(name, dir_fd=parent).st_mtime < before:
                remove_folder(parent, name, shown / name, report)
        report.alive()


def of_point(folder: str) -> tuple[str, str]:
    """The folder of its domain, and its name. Raises ForeignEntry."""
    domain, name = places.split(folder)
    if domain.count("/") != 1 or not domain.startswith(f"{DOMAINS}/") or name.startswith("."):
        raise ForeignEntry(path=bounded_io.printable(folder), reason="not the folder of a point")
    return domain, name


# --- what stands on it ----------------------------------------------------------------------------


def _standing_on(path: str, domain: str, name: str, report: Report) -> Iterator[str]:
    """The folders of this domain with an image whose header names a file of the point. The headers are what a restore follows."""
    with places.opened_folder(path, domain) as parent:
        others = [other for other in places.names(parent) if other != name and not other.startswith(REMOVED_PREFIX)]
    for other in others:
        with suppress(FileNotFoundError, ForeignEntry), places.opened_folder(path, f"{domain}/{other}") as folder:
            if any(_below(folder, file, Path(path, domain, other, file)) == name for file in places.names(folder)):
                yield f"{domain}/{other}"
        report.alive()


def _below(folder: int, file: str, shown: Path) -> str | None:
    """The name of the point on which the file stands. None: on none, or the file is not an image."""
    try:
        descriptor = places.opened_file(folder, file, shown)
    except (FileNotFoundError, ForeignEntry):
        return None
    try:
        with failures.in_repository(shown, "reading", is_write=False):
            header = parse(os.pread(descriptor, READ_BYTES, 0))
    finally:
        os.close(descriptor)
    if header is None or header.below is None:
        return None
    return Path(header.below).parent.name


# --- the removal ----------------------------------------------------------------------------------


def _set_aside(parent: int, name: str, shown: Path, report: Report) -> None:
    aside = f"{REMOVED_PREFIX}{name}"
    # An earlier point of this name, whose removal was interrupted. A rename puts nothing in its place.
    remove_folder(parent, aside, shown.with_name(aside), report)
    with failures.in_repository(shown, "removing"):
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
    places.sync_folder(parent, shown.parent)


def remove_folder(parent: int, name: str, shown: Path, report: Report) -> int:
    """Returns the bytes that the files took. A folder that is not there is removed already."""
    if not is_folder(parent, name):
        return 0
    with failures.in_repository(shown, "removing"):
        freed = _remove_tree(parent, name, report)
    places.sync_folder(parent, shown.parent)
    return freed


def _remove_tree(parent: int, name: str, report: Report) -> int:
    """A symbolic link is removed, and never what it points to."""
    freed = 0
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for entry in places.names(folder):
            status = os.lstat(entry, dir_fd=folder)
            if stat.S_ISDIR(status.st_mode):
                freed += _remove_tree(folder, entry, report)
            else:
                os.unlink(entry, dir_fd=folder)
                freed += status.st_blocks * 512
            report.alive()
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)
    return freed


def is_folder(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode)
    except FileNotFoundError:
        return False


STEPS = {"remove_point": remove_point}
