"""Reads the archive of a sealed point in a repository with a key: definition, NVRAM and TPM state."""

import os
from pathlib import Path

from service.model.manifest import Manifest
from service.repository import durable, places
from service.repository.failures import in_repository
from service.repository.report import Report
from service.repository.state_archive import NotAnArchive, archive_of, decrypted, members, names_in
from service.repository.stored_chain import damaged


def archived(path: str, folder: str, manifest: Manifest, name: str, report: Report) -> bytes | None:
    """The content of this file in the archive. None: it is not in an archive, but in a file of its own. Raises as `files_of`."""
    return files_of(path, folder, manifest, report)[name] if name in names_in(manifest) else None


def files_of(path: str, folder: str, manifest: Manifest, report: Report) -> dict[str, bytes]:
    """Every file that the manifest names in the archive, by its name. None is missing. Raises PointDamaged, ForeignEntry, KeyUnusable."""
    archive = archive_of(manifest) or ""
    shown = Path(path, folder, archive)
    content = _opened_and_read(path, folder, manifest, archive, report)
    try:
        files = members(content)
    except NotAnArchive as error:
        raise damaged(folder, shown, error.reason) from error
    if missing := sorted(names_in(manifest) - files.keys()):
        raise damaged(folder, shown, f"it does not have the file {missing[0]}")
    return files


def _opened_and_read(path: str, folder: str, manifest: Manifest, archive: str, report: Report) -> bytes:
    between, name = places.split(f"{folder}/{archive}")
    shown = Path(path, folder, archive)
    try:
        with places.opened_folder(path, between) as opened:
            descriptor = places.opened_file(opened, name, shown)
    except FileNotFoundError as error:
        raise damaged(folder, shown, "it is missing") from error
    try:
        with in_repository(shown, "reading", is_write=False):
            sha256, _ = durable.sha256_of(descriptor, lambda _: report.alive())
        if sha256 not in [file.sha256 for file in manifest.files if file.name == archive]:
            raise damaged(folder, shown, "its bytes are not those that were sealed")
        return decrypted(descriptor, shown, report)
    except NotAnArchive as error:
        raise damaged(folder, shown, error.reason) from error
    finally:
        os.close(descriptor)
