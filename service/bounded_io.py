"""File system calls on the storage of disks, each with a time limit: a mount that hangs (NFS) blocks them for ever."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from service.deadlines import HELPERS, CallTimedOut
from service.errors import HostOutOfDescriptors, StillpointError, StorageNotAnswering, StorageRefused

T = TypeVar("T")

PATIENCE_S = 20.0
"""Seconds for one call, if the caller does not say. After that the storage counts as not answering."""
NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def call(what: str, path: str | Path, function: Callable[[], T], limit_s: float | None = None) -> T:
    """What `function` returns or raises, within `limit_s` (default PATIENCE_S). `what`: the call in words; the path follows.

    Raises StorageNotAnswering. The call may still take effect when the mount answers again.
    """
    try:
        return HELPERS.run(function, PATIENCE_S if limit_s is None else limit_s, call=what, lane=f"storage {Path(path).parent}")
    except CallTimedOut as hung:
        raise StorageNotAnswering(what=what, path=str(path), timeout_ms=hung.waited_s * 1000, why=hung.why) from hung


def translated_call(what: str, path: str | Path, function: Callable[[], T], limit_s: float | None = None) -> T:
    """Like `call`; an OSError becomes an error that names `path`. Raises StorageRefused, HostOutOfDescriptors, StorageNotAnswering."""
    try:
        return call(what, path, function, limit_s)
    except OSError as error:
        raise refusal(what, path, error) from error


def refusal(what: str, path: str | Path, error: OSError) -> StillpointError:
    """The error for an operation that the system refused. `what`: the operation in words; the path follows."""
    shown = printable(path)
    if error.errno in NO_DESCRIPTORS:
        return HostOutOfDescriptors(what=f"{what} {shown}", reason=reason_of(error))
    return StorageRefused(what=what, path=shown, reason=reason_of(error), errno=errno_name(error))


def reason_of(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def errno_name(error: OSError) -> str | None:
    return errno.errorcode.get(error.errno) if error.errno is not None else None


def printable(path: object) -> str:
    """The name with escapes for what is not UTF-8: such a file can be opened, but its name can be neither stored nor sent."""
    text = path.decode(errors="surrogateescape") if isinstance(path, bytes) else str(path)
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Turn errors of the system before the window into errors that name the file and the reason, so that the job fails and does not crash.

    This only gives the error its type. The code that made files removes them. `doing`: what the job was doing, in words.
    """
    try:
        yield
    except OSError as error:
        raise refusal(doing, error.filename if error.filename is not None else "(no file)", error) from error
    except subprocess.SubprocessError as error:
        raise StorageRefused(what=doing, path="(a program)", reason=str(error), errno=None) from error
    except UnicodeError as error:
        raise StorageRefused(what=doing, path="(a name)", reason="a name or an answer is not UTF-8", errno=None) from error
