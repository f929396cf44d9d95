"""What an error of the system means for a repository: one that is full, read-only, slow or gone is told apart from a bad one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service import bounded_io
from service.errors import (
    ForeignEntry,
    RepositoryFull,
    RepositoryGone,
    RepositoryNotAnswering,
    RepositoryReadOnly,
    RepositoryRefused,
    StillpointError,
    StorageRefused,
    TargetFull,
)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
READ_ONLY = frozenset({errno.EROFS})
NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM})
#: The mount is not there any more, or its server does not know it.
GONE = frozenset({errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.ENOMEDIUM})
#: A mount that gives up by itself (NFS with `softerr`), instead of a call that hangs.
NOT_ANSWERING = frozenset({errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})


def of_repository(error: OSError, path: str | Path, what: str, *, is_write: bool = True) -> StillpointError:
    """The error for a call on something below a repository. `what`: the call in words; the path follows."""
    shown, reason, number = bounded_io.printable(path), bounded_io.reason_of(error), error.errno
    if number in FULL:
        return RepositoryFull(path=shown, needed_bytes=None, free_bytes=free_bytes(path))
    if number in READ_ONLY or (number in NOT_PERMITTED and is_write):
        return RepositoryReadOnly(path=shown, reason=reason)
    if number in GONE:
        return RepositoryGone(path=shown, reason=reason)
    if number in NOT_ANSWERING:
        return RepositoryNotAnswering(path=shown, step=what, silent_s=0.0)
    if number == errno.ELOOP:
        return ForeignEntry(path=shown, reason="a symbolic link")
    return RepositoryRefused(path=shown, what=what, reason=reason)


def of_target(error: OSError, path: str | Path, what: str, needed_bytes: int | None = None) -> StillpointError:
    """The error for a call on a file outside the repository that a restore writes."""
    if error.errno in FULL:
        folder = Path(path).parent
        return TargetFull(folder=bounded_io.printable(folder), needed_bytes=needed_bytes, free_bytes=free_bytes(folder))
    return of_source(error, path, what)


def of_source(error: OSError, path: str | Path, what: str) -> StillpointError:
    """The error for a call on a file outside the repository that a backup reads."""
    shown = bounded_io.printable(path)
    return StorageRefused(what=what, path=shown, reason=bounded_io.reason_of(error), errno=bounded_io.errno_name(error))


@contextmanager
def in_repository(path: str | Path, what: str, *, is_write: bool = True) -> Iterator[None]:
    """Errors of the system inside become errors of the repository."""
    try:
        yield
    except OSError as error:
        raise of_repository(error, path, what, is_write=is_write) from error


def free_bytes(path: str | Path) -> int | None:
    """None: not known, as the file is not there. Only the hand asks: it may hang."""
    for place in (Path(path), *Path(path).parents):
        try:
            status = os.statvfs(place)
        except OSError:
            continue
        return status.f_bavail * status.f_frsize
    return None
