"""Making the file of an overlay in a folder that others can write: what they put there is never written, owned or removed as ours."""

import os
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from service.model.file_identity import FileIdentity

QEMU_IMG = "qemu-img"
QEMU_IMG_TIMEOUT_S = 60
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make(path: str, base: str, options: Sequence[str], size: int) -> FileIdentity:
    """A new qcow2 of mode 0600, with the owner of `base`; `options`: of `qemu-img create`, before the file. Answers which file it is.

    Raises OSError (FileExistsError: something is there, a dangling symlink too), CalledProcessError, TimeoutExpired; then nothing is left.
    """
    descriptor = os.open(path, _NEW, 0o600)
    try:
        _fill(descriptor, path, options, size)
        _take_owner_of(base, descriptor)
        if not _is_at(path, descriptor):
            raise OSError(f"something else was put in its place while it was made: {path}")
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
    """The next start of the domain may run under another user than ours; libvirt relabels, but not on every set-up."""
    found = Path(base).stat()
    if not stat.S_ISBLK(found.st_mode) and os.geteuid() == 0:
        os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, 0o600)


def _is_at(path: str, descriptor: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False
