"""The new files of a restore on the storage of the host: each is made under another name, and gets its own name when it is complete."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from service import bounded_io, log
from service.errors import RestoreRefused, StillpointError
from service.hypervisor.qemu_process import Credentials
from service.jobs.restore_intent import NewFile, RestoreIntent
from service.model.file_identity import FileIdentity
from service.model.restore_facts import Space

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})
"""A filesystem without hard links."""

_logger = log.get(__name__)


def planned(what: str, path: str, mark: str) -> NewFile:
    """`mark` tells the partial files of two attempts apart."""
    return NewFile(what, path, str(Path(path).with_name(f".{what}.{mark}.partial")))


def identified(file: NewFile) -> NewFile:
    """The complete file under its partial name. Raises StorageRefused, StorageNotAnswering."""
    status = bounded_io.translated_call("looking at", file.partial, Path(file.partial).lstat)
    return replace(file, made=FileIdentity.of(status))


def publish(file: NewFile, domain: str) -> None:
    """Give the complete file its name. Nothing is overwritten. Raises RestoreRefused, StorageRefused, StorageNotAnswering."""
    try:
        bounded_io.call("naming", file.path, lambda: _publish(file))
    except FileExistsError as error:
        reason = f"{file.path} was made by another program meanwhile"
        raise RestoreRefused(domain=domain, reason=reason, instead="Name another `folder`, or move the file away.") from error
    except OSError as error:
        raise bounded_io.refusal("naming", file.path, error) from error


def _publish(file: NewFile) -> None:
    try:
        os.link(file.partial, file.path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(file.path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), file.path) from error
        Path(file.partial).rename(file.path)
    else:
        Path(file.partial).unlink()
    folder = os.open(Path(file.path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove(files: Sequence[NewFile]) -> list[str]:
    """Remove what was made, complete or not, and nothing else. Returns the paths that could not be removed."""
    left = []
    for file in files:
        try:
            bounded_io.call("removing", file.path, partial(_remove, file))
        except (OSError, StillpointError) as error:
            _logger.error("restored_file_left", path=bounded_io.printable(file.path), reason=str(error))
            left.append(file.path)
    return left


def remove_all(intent: RestoreIntent, *, tpm_is_in_use: bool = False) -> list[str]:
    """`remove`, for everything that a restore made whose domain was not switched, or was switched back."""
    left = remove(intent.files)
    if intent.tpm is not None:
        try:
            intent.tpm.leave_in_use() if tpm_is_in_use else intent.tpm.take_back()
        except StillpointError as error:
            _logger.error("restored_tpm_left", path=intent.tpm.state, reason=error.detail)
            left.append(intent.tpm.state)
    return left


def _remove(file: NewFile) -> None:
    with suppress(FileNotFoundError):
        if file.made is not None and file.made.is_of(Path(file.path).lstat()):
            Path(file.path).unlink()
    with suppress(FileNotFoundError):
        Path(file.partial).unlink()


def is_complete(file: NewFile) -> bool:
    """Raises StorageRefused, StorageNotAnswering."""

    def look() -> bool:
        with suppress(FileNotFoundError):
            return file.made is not None and file.made.is_of(Path(file.path).lstat())
        return False

    return bounded_io.translated_call("looking at", file.path, look)


# --- what a plan needs to know --------------------------------------------------------------------


def spaces(folders: Sequence[str]) -> dict[str, Space]:
    """By folder. Raises RestoreRefused if a folder is not there, StorageRefused, StorageNotAnswering."""
    return {folder: bounded_io.translated_call("looking at", folder, partial(_space, folder)) for folder in folders}


def _space(folder: str) -> Space:
    status, free = os.stat(folder), os.statvfs(folder)  # noqa: PTH116 - beside statvfs
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    return Space(status.st_dev, free.f_bavail * free.f_frsize)


def existing(paths: Sequence[str]) -> frozenset[str]:
    """Raises StorageRefused, StorageNotAnswering."""
    return frozenset(path for path in paths if bounded_io.translated_call("looking at", path, partial(os.path.lexists, path)))


# --- whose they are -------------------------------------------------------------------------------


def give_to_qemu(file: NewFile, user: Credentials, old: str | None) -> None:
    """The complete file gets the owner and the mode of `old`, which it replaces, or else the user of the QEMU that will open it.

    libvirt gives the disks of a domain to that user at its start, but not on a host with `dynamic_ownership = 0`.
    Raises StorageRefused, StorageNotAnswering.
    """
    bounded_io.translated_call("giving away", file.partial, partial(_give, file.partial, user, old))


def _give(path: str, user: Credentials, old: str | None) -> None:
    owner, mode = (user.uid, user.gid), stat.S_IRUSR | stat.S_IWUSR
    with suppress(OSError):
        status = Path(old).stat() if old is not None else None
        if status is not None and stat.S_ISREG(status.st_mode):
            owner, mode = (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode) & 0o777
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Another user than root can give nothing away, and runs QEMU as itself.
        if os.geteuid() == 0:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
