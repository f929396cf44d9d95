"""What a backup keeps in the state folder of its worker until it has ended: the state of firmware and TPM, as it was at the point.

The repository may be away for hours after the point. Here the files are safe at once, whatever the guest does to its own meanwhile.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from service import bounded_io
from service.bounded_io import refusal
from service.model.backup_intent import Firmware

FOLDER = "backups"
_GIVEN_UP = "given-up"


class BackupFolder:
    """The folder of one job. Only the worker's user can read it: the state of a TPM holds secrets."""

    def __init__(self, state_dir: Path, job_id: str) -> None:
        self.path = state_dir / FOLDER / job_id

    def keep(self, firmware: Firmware) -> None:
        """Copy the files, and wait until they are on the disk. Raises StorageRefused, StorageNotAnswering, HostOutOfDescriptors."""
        for name, source in files_of(firmware).items():
            content = bounded_io.translated_call("reading", source, Path(source).read_bytes)
            self._write(name, content)

    def kept(self, firmware: Firmware) -> Mapping[str, Path] | None:
        """The files by the names that they get in the point. None: some are not here."""
        files = {name: self.path / name for name in files_of(firmware)}
        return files if all(file.is_file() for file in files.values()) else None

    def give_up(self) -> None:
        """From now on the files below the overlays are not a point any more, whatever the database knew last."""
        self._write(_GIVEN_UP, b"")

    @property
    def is_given_up(self) -> bool:
        return (self.path / _GIVEN_UP).exists()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, content: bytes) -> None:
        file = self.path / name
        try:
            for folder in (self.path.parent, self.path, file.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_down(file, content)
            for folder in (file.parent, self.path, self.path.parent):
                _sync(folder)
        except OSError as error:
            raise refusal("writing", file, error) from error


def files_of(firmware: Firmware) -> dict[str, str]:
    """By the name in the point: the file of the host."""
    files = {f"tpm/{path.rpartition('/')[2]}": path for path in firmware.tpm}
    return files | ({"nvram": firmware.nvram} if firmware.nvram is not None else {})


def _write_down(file: Path, content: bytes) -> None:
    """The name is there only when all of the content is."""
    unfinished = file.with_name(f".{file.name}")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    unfinished.replace(file)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
