"""Makes the file of an overlay in a folder that other users can write to.

A file that another user put there is never written to, and never gets another owner. It is never removed as ours.
"""

import errno
import os
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from service.model.file_identity import FileIdentity

QEMU_IMG = "qemu-img"
QEMU_IMG_TIMEOUT_S = 60
"""Seconds for `qemu-img create`. After that it is killed, and the overlay is not made."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make(path: str, base: str, options: Sequence[str], size: int) -> FileIdentity:
    """Make a qcow2 of mode 0600 with the owner of `base`, and return its identity.

    `options`: arguments of `qemu-img create` before the file. Raises OSError (FileExistsError: the name is taken, also by a dangling
    symlink), CalledProcessError, TimeoutExpired. The file is then removed.
    """
    descriptor = os.open(path, _NEW, 0o600)
    try:
        _fill(descriptor, path, options, size)
        _take_owner_of(base, descriptor)
        if not _is_at(path, descriptor):
            raise OSError(errno.EEXIST, f"another program replaced the file while it was made: {path}")
        return FileIdentity.of(os.fstat(descriptor))
    except BaseException:
        if _is_at(path, descriptor):
            Path(path).unlink()
        raise
    finally:
        os.close(descriptor)


def _fill(descriptor: int, path: str, options: Sequence[str], size: int) -> None:
    # Through the descriptor, because another user who can write to the folder may have replaced the file by a link.
    opened = f"/proc/self/fd/{descriptor}"
    command = [QEMU_IMG, "create", "-q", *options, opened, str(size)]
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace", timeout=QEMU_IMG_TIMEOUT_S, pass_fds=(descriptor,)
        )
    except subprocess.CalledProcessError as error:
        error.stderr = error.stderr.replace(opened, path)
        raise


def _take_owner_of(base: str, descriptor: int) -> None:
    """The next start of the domain may run as another user than the worker. libvirt changes owners, but not on every host."""
    status = Path(base).stat()
    if not stat.S_ISBLK(status.st_mode) and os.geteuid() == 0:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, 0o600)


def _is_at(path: str, descriptor: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False
