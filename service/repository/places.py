"""Files and folders below a repository, reached without following a symbolic link: another user may be able to write there."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service import bounded_io
from service.errors import ForeignEntry, RepositoryBad, RepositoryGone, StillpointError
from service.repository import failures

FOLDER_MODE = 0o700
FILE_MODE = 0o600
DRAFT_PREFIX = ".draft-"
"""The start of the name of a file that is being written. What a killed write leaves is removed when the point is published."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: A FIFO or a device that was put there must not block the open.
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def parts(relative: str) -> list[str]:
    """The names on the way. Raises ForeignEntry for a path that leaves the folder, as a manifest that was changed may have."""
    names = relative.split("/") if relative else []
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise ForeignEntry(path=bounded_io.printable(relative), reason="not a path inside the repository")
    return names


def split(relative: str) -> tuple[str, str]:
    """The folder on the way, and the last name. Raises ForeignEntry."""
    names = parts(relative)
    if not names:
        raise ForeignEntry(path=relative, reason="a name is missing")
    return "/".join(names[:-1]), names[-1]


@contextmanager
def opened_folder(path: str, relative: str = "", *, is_made: bool = False) -> Iterator[int]:
    """A descriptor of a folder below the repository at `path`. `is_made`: folders that are not there are made.

    Raises FileNotFoundError, RepositoryGone, ForeignEntry and other errors of the repository.
    """
    descriptor, shown = _opened_root(path), Path(path)
    try:
        for name in parts(relative):
            shown /= name
            entered = _entered(descriptor, name, shown, is_made)
            os.close(descriptor)
            descriptor = entered
        yield descriptor
    finally:
        os.close(descriptor)


def opened_file(folder: int, name: str, shown: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file in the folder of this descriptor. Raises FileNotFoundError, FileExistsError, ForeignEntry, and others."""
    try:
        descriptor = os.open(name, flags | _FILE, FILE_MODE, dir_fd=folder)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise _refusal(error, folder, name, shown) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise foreign(folder, name, shown)
    return descriptor


def checked_path(path: str, relative: str, *, may_be_absent: bool = False) -> Path:
    """The path of a regular file, for a program that takes paths. Raises FileNotFoundError, ForeignEntry and others."""
    between, name = split(relative)
    with opened_folder(path, between) as folder:
        place = Path(path, relative)
        try:
            is_file = stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode)
        except FileNotFoundError:
            if not may_be_absent:
                raise
            return place
        if not is_file:
            raise foreign(folder, name, place)
        return place


def text_of(folder: int, name: str, shown: Path, limit: int) -> str:
    """The text of a small file. Raises FileNotFoundError, ForeignEntry (also for one that is larger than `limit` bytes, or no text)."""
    with os.fdopen(opened_file(folder, name, shown), "rb") as file, failures.in_repository(shown, "reading", is_write=False):
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ForeignEntry(path=bounded_io.printable(shown), reason=f"it has more than {limit} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ForeignEntry(path=bounded_io.printable(shown), reason="it is not UTF-8") from error


def write_text(folder: int, name: str, shown: Path, text: str) -> None:
    """Write a file and sync it. Its name appears only when the content is complete."""
    write_bytes(folder, name, shown, text.encode())


def write_bytes(folder: int, name: str, shown: Path, content: bytes) -> None:
    """Like `write_text`."""
    with drafted(folder, folder, name, shown) as draft:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(draft, rest) :]
        os.fsync(draft)


@contextmanager
def drafted(top: int, folder: int, name: str, shown: Path) -> Iterator[int]:
    """A descriptor of a new file in `top`, which becomes `name` in `folder` when all went well, and is removed otherwise.

    Errors of the system inside are errors of the repository.
    """
    draft = f"{DRAFT_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with failures.in_repository(shown, "writing"):
            descriptor = opened_file(top, draft, shown, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            os.rename(draft, name, src_dir_fd=top, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=top)
        raise
    sync_folder(folder, shown.parent)


def names(folder: int) -> list[str]:
    return os.listdir(folder)


def sync_folder(folder: int, shown: Path) -> None:
    with failures.in_repository(shown, "syncing"):
        try:
            os.fsync(folder)
        except OSError as error:
            # Some network filesystems (CIFS) cannot sync a folder: they do so by themselves.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def foreign(folder: int, name: str, shown: Path) -> ForeignEntry:
    """The error for what stands there instead."""
    try:
        mode = os.lstat(name, dir_fd=folder).st_mode
    except OSError as error:
        return ForeignEntry(path=bounded_io.printable(shown), reason=bounded_io.reason_of(error))
    return ForeignEntry(path=bounded_io.printable(shown), reason=f"it is {_KINDS.get(stat.S_IFMT(mode), 'not a file')}")


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


def _opened_root(path: str) -> int:
    """The path of the repository itself may have symbolic links: the administrator gave it."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise RepositoryGone(path=bounded_io.printable(path), reason="there is no such folder") from error
    except NotADirectoryError as error:
        raise RepositoryBad(path=bounded_io.printable(path), reason="it is not a folder") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):
            raise RepositoryBad(path=bounded_io.printable(path), reason=str(error)) from error
        raise failures.of_repository(error, path, "opening", is_write=False) from error


def _entered(folder: int, name: str, shown: Path, is_made: bool) -> int:
    try:
        if is_made:
            with suppress(FileExistsError):
                os.mkdir(name, FOLDER_MODE, dir_fd=folder)
                os.fsync(folder)
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refusal(error, folder, name, shown, is_write=is_made) from error


def _refusal(error: OSError, folder: int, name: str, shown: Path, *, is_write: bool = True) -> StillpointError:
    # ENXIO: a FIFO or a socket that nobody reads. EISDIR: a folder that should be a file.
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
        return foreign(folder, name, shown)
    return failures.of_repository(error, shown, "opening", is_write=is_write)
