"""Removes the old disks of a domain that runs on restored ones: only files that nothing uses any more."""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from service import bounded_io, log
from service.disks.image_users import why_not_unused
from service.errors import StillpointError
from service.hypervisor.guest import Guest

_logger = log.get(__name__)


def remove(paths: Sequence[str], guests: Callable[[], Sequence[Guest]]) -> list[str]:
    """The paths that were removed. The files below an old overlay stay: they may be recovery points."""
    removed = []
    try:
        named = _named_by(guests())
    except StillpointError as error:
        _logger.warning("old_disks_kept", reason=error.detail)
        return []
    for path in paths:
        reason = "a domain names it" if os.path.realpath(path) in named else _removal_of(path)
        if reason is None:
            removed.append(path)
        else:
            _logger.warning("old_disk_kept", path=path, reason=reason)
    return removed


def _named_by(guests: Sequence[Guest]) -> set[str]:
    """Every file that a domain names for a disk, or below one, now or at its next start. Raises StillpointError."""
    files: set[str] = set()
    for guest in guests:
        for disk in guest.disks():
            files |= {os.path.realpath(path) for path in (disk.source, *disk.chain) if path is not None}
        files |= {os.path.realpath(path) for path in guest.persistent_sources().values() if path is not None}
    return files


def _removal_of(path: str) -> str | None:
    """Why it was not removed. None: it is gone."""
    try:
        status = bounded_io.call("looking at", path, Path(path).lstat)
        if not stat.S_ISREG(status.st_mode):
            return "it is not a regular file"
        user = bounded_io.call("looking for the users of", path, lambda: why_not_unused(path, status))
        if user is None:
            bounded_io.call("removing", path, Path(path).unlink)
    except FileNotFoundError:
        return None
    except (OSError, StillpointError) as error:
        return str(error)
    return user
