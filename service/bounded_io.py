"""File system calls on the storage of disks: a mount that hangs (NFS) blocks them for ever, so each has a limit."""

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
NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def answered(what: str, path: str | Path, function: Callable[[], T], limit_s: float | None = None) -> T:
    """What `function` returns or raises, within `limit_s` (PATIENCE_S). `what`: in words, before the path.

    Raises StorageNotAnswering; what was asked for may still happen when the mount answers again.
    """
    try:
        return HELPERS.run(function, PATIENCE_S if limit_s is None else limit_s, call=what, lane=f"storage {Path(path).parent}")
    except CallTimedOut as hung:
        raise StorageNotAnswering(what=what, path=str(path), timeout_ms=hung.waited_s * 1000, why=hung.why) from hung


def examined(what: str, path: str | Path, function: Callable[[], T]) -> T:
    """The same; what the system denies is a refusal that names `path`. Raises StorageRefused, HostOutOfDescriptors, StorageNotAnswering."""
    try:
        return answered(what, path, function)
    except OSError as error:
        raise refusal(what, path, error) from error


def refusal(what: str, path: str | Path, error: OSError) -> StillpointError:
    """In the words of the system: `what` (in words, before the path) was denied."""
    shown = printable(path)
    if error.errno in NO_DESCRIPTORS:
        return HostOutOfDescriptors(what=f"{what} {shown}", reason=reason_of(error))
    return StorageRefused(what=what, path=shown, reason=reason_of(error), errno=errno_name(error))


def reason_of(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def errno_name(error: OSError) -> str | None:
    return errno.errorcode.get(error.errno) if error.errno is not None else None


def printable(path: object) -> str:
    """A name that is not UTF-8 can be opened, but neither stored nor sent: it is shown with escapes."""
    text = path.decode(errors="surrogateescape") if isinstance(path, bytes) else str(path)
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """On the way to the window, whatever the host denies is the end of the job, with the file and the reason, and no crash.

    What was made is removed by who made it; this only gives the error its type. `doing`: what the job was about, in words.
    """
    try:
        yield
    except OSError as error:
        raise refusal(doing, error.filename if error.filename is not None else "(no file)", error) from error
    except subprocess.SubprocessError as error:
        raise StorageRefused(what=doing, path="(a program)", reason=str(error), errno=None) from error
    except UnicodeError as error:
        raise StorageRefused(what=doing, path="(a name)", reason="a name or an answer is not UTF-8", errno=None) from error
