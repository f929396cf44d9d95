"""The state of a machine in a repository with a key: definition, NVRAM and TPM state in one archive, encrypted as QEMU encrypts disks.

The archive is a tar in a LUKS container. `qemu-img` opens the container with the key of the disks, and `tar` reads the rest, so a person
needs nothing of this service. What is not encrypted is in the memory of this process, and never in a file.
"""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.errors import RepositoryRefused
from service.model.manifest import Manifest
from service.repository import durable, images, partial, places
from service.repository.image_key import is_about_the_key, need_key, wrong_key
from service.repository.report import Report


class NotAnArchive(Exception):
    """`reason`: why the content of the container cannot be read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def put_state(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Write `files` as the archive `name` in the partial folder. One that is there is replaced. Raises KeyUnusable.

    `files`: each with its `name` in the archive, and `text`, or the file `source` of the host. What an earlier version of the service has
    left of these files without encryption is removed.
    """
    path, folder_of_point = arguments["path"], partial.must_be_unfinished(arguments["partial"])
    name = arguments["name"]
    shown = Path(path, folder_of_point, name)
    need_key(True, report, str(shown))
    content = _packed(arguments["files"], report)
    with places.opened_folder(path, folder_of_point) as folder:
        with places.drafted(folder, folder, name, shown) as draft:
            _encrypt(content, draft, shown, report)
            if decrypted(draft, shown, report)[: len(content)] != content:
                raise RepositoryRefused(path=str(shown), what="writing", reason="what is read from it is not what was written")
            durable.sync(draft, report)
        _remove_unencrypted(folder, [file["name"] for file in arguments["files"]])
        return {"bytes": os.lstat(name, dir_fd=folder).st_size}


def decrypted(descriptor: int, shown: Path, report: Report) -> bytes:
    """The content of the container, with what fills its last sector. Raises KeyUnusable, NotAnArchive."""
    need_key(True, report, str(shown))
    with _in_memory() as plain:
        try:
            images.decrypt(descriptor, plain, report)
        except images.QemuImgFailed as failed:
            if is_about_the_key(failed.reason):
                raise wrong_key(str(shown)) from failed
            raise NotAnArchive(f"QEMU cannot read it: {failed.reason}") from failed
        report.alive()
        return os.pread(plain, os.fstat(plain).st_size, 0)


def members(content: bytes) -> dict[str, bytes]:
    """The files of the archive by their names. Raises NotAnArchive."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            return {each.name: _content_of(archive, each) for each in archive if each.isreg()}
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise NotAnArchive(f"it is not a tar archive: {error}") from error


def names_in(manifest: Manifest) -> frozenset[str]:
    """The files that the archive of the point must have. Empty: the point has no archive."""
    stated = manifest.state_files
    if archive_of(manifest) is None:
        return frozenset()
    return frozenset(name for name in (stated.get("definition"), stated.get("nvram"), *(stated.get("tpm") or ())) if name is not None)


def archive_of(manifest: Manifest) -> str | None:
    """The name of the archive. None: the state is in files of their own."""
    name = manifest.state_files.get("archive")
    return str(name) if name is not None else None


def _packed(files: Sequence[Mapping[str, Any]], report: Report) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            text = file.get("text")
            content = text.encode() if text is not None else b"".join(partial.pieces_of(file["source"], report))
            about = tarfile.TarInfo(file["name"])
            about.size, about.mode = len(content), places.FILE_MODE
            archive.addfile(about, io.BytesIO(content))
    return whole.getvalue()


def _content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _encrypt(content: bytes, target: int, shown: Path, report: Report) -> None:
    with _in_memory() as plain:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(plain, rest) :]
        try:
            images.encrypt(plain, target, report)
        except images.QemuImgFailed as failed:
            raise RepositoryRefused(path=str(shown), what="encrypting", reason=failed.reason) from failed
    report.alive()


@contextmanager
def _in_memory() -> Iterator[int]:
    descriptor = os.memfd_create("state", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_unencrypted(folder: int, names: Sequence[str]) -> None:
    for name in names:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(name, dir_fd=folder)
    for parent in {name.rpartition("/")[0] for name in names if "/" in name}:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.rmdir(parent, dir_fd=folder)


STEPS = {"put_state": put_state}
