"""A new file outside the repository, or a device that is overwritten. A file that is not complete is removed."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from service.errors import StillpointError, StorageRefused
from service.repository.failures import of_target

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICE = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True)
class NewFile:
    """`is_device`: a block device that is there. The system refuses one that is mounted."""

    path: Path
    needed_bytes: int | None
    is_device: bool = False

    @classmethod
    def asked(cls, arguments: Mapping[str, Any], needed_bytes: int | None) -> Self:
        return cls(Path(arguments["target"]), needed_bytes, bool(arguments.get("is_device")))

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Raises StorageRefused (also for a file that is there already), TargetFull."""
        try:
            descriptor = os.open(self.path, _DEVICE if self.is_device else _NEW_FILE, 0o600)
        except OSError as error:
            raise self.explained(error, self.path, "making") from error
        try:
            if self.is_device:
                self._check_device(descriptor)
            yield descriptor
            if not self.is_device:
                self._sync_folder()
        except BaseException:
            if not self.is_device:
                with suppress(OSError):
                    self.path.unlink()
            raise
        finally:
            os.close(descriptor)

    def explained(self, error: OSError, path: str | Path, what: str) -> StillpointError:
        return of_target(error, path, what, needed_bytes=self.needed_bytes)

    def _check_device(self, descriptor: int) -> None:
        reason = None
        if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
            reason = "not a block device"
        elif (size := os.lseek(descriptor, 0, os.SEEK_END)) < (self.needed_bytes or 0):
            reason = f"the device has {size} bytes, and the disk has {self.needed_bytes} bytes"
        if reason is not None:
            raise StorageRefused(what="writing", path=str(self.path), reason=reason, errno=None)

    def _sync_folder(self) -> None:
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self.explained(error, self.path, "writing") from error
