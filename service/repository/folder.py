"""Steps on the repository as a whole: what it is, whether it can be written, and making a new one."""

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import bounded_io
from service.clock import rfc3339
from service.errors import ForeignEntry, RepositoryBad, RepositoryFull, RepositoryGone, RepositoryReadOnly, StillpointError
from service.model.repository import FORMAT, FORMAT_VERSION, REPOSITORY_FILE
from service.repository import failures, places
from service.repository.report import Report

KEYS = "keys"
KEY_SUFFIX = ".pub"
PROBE_PREFIX = ".probe-"
PROBE_BYTES = 4096
"""Bytes of the file that is written to see that the repository can be written."""
MAX_DESCRIPTION_BYTES = 65536
"""Bytes of repository.json. A larger file is not one of ours, and the folder is refused."""
#: What a filesystem has that was made for the repository.
_OF_THE_FILESYSTEM = frozenset({"lost+found", ".snapshot", ".snapshots", ".zfs"})


def look(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Raises RepositoryGone, RepositoryBad and others for a folder that cannot be read as this repository.

    One that only cannot be written is told with `is_writable` and `why_not`: its points can be restored.
    """
    path = arguments["path"]
    with places.opened_folder(path) as root:
        described = must_be(root, path, arguments.get("id"))
        report.alive()
        status, itself = os.fstatvfs(root), os.fstat(root)
        why_not = _why_not_writable(root, path)
    return {
        "id": described["id"],
        "version": described["version"],
        "free_bytes": status.f_bavail * status.f_frsize,
        "total_bytes": status.f_blocks * status.f_frsize,
        "place": [itself.st_dev, itself.st_ino],
        "is_writable": why_not is None,
        "why_not": None if why_not is None else {"code": why_not.code, "facts": dict(why_not.facts)},
    }


def create(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Make an empty or absent folder a repository. One that is this repository already is left as it is."""
    path, repository_id = arguments["path"], arguments["id"]
    with failures.in_repository(path, "making"):
        try:
            with suppress(FileExistsError):
                Path(path).mkdir(places.FOLDER_MODE)
        except FileNotFoundError as error:
            raise RepositoryGone(path=bounded_io.printable(Path(path).parent), reason="there is no such folder") from error
    report.alive()
    with places.opened_folder(path) as root:
        there = _entries(root, path)
        if REPOSITORY_FILE not in there:
            _refuse_others(there, path)
            _describe(root, path, repository_id)
        described = description(root, path)
        if described["id"] != repository_id:
            raise _bad(path, f"it is the repository {described['id']} already")
    return {"id": repository_id, "version": described["version"]}


def put_key(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Keep the public key of a service beside the points that it signs. One that is there is never replaced."""
    path, name = arguments["path"], f"{arguments['key_id']}{KEY_SUFFIX}"
    with places.opened_folder(path) as root:
        description(root, path)
    with places.opened_folder(path, KEYS, is_made=True) as folder:
        report.alive()
        if is_new := name not in places.names(folder):
            places.write_text(folder, name, Path(path, KEYS, name), arguments["text"])
    return {"is_new": is_new}


def list_keys(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The texts of the public keys by their ids. What is not a small file of text is left out."""
    path, keys = arguments["path"], {}
    with suppress(FileNotFoundError, ForeignEntry), places.opened_folder(path, KEYS) as folder:
        for name in places.names(folder):
            with suppress(FileNotFoundError, ForeignEntry):
                if name.endswith(KEY_SUFFIX):
                    keys[name.removesuffix(KEY_SUFFIX)] = places.text_of(folder, name, Path(path, KEYS, name), MAX_DESCRIPTION_BYTES)
            report.alive()
    return {"keys": keys}


def _describe(root: int, path: str, repository_id: str) -> None:
    content = {"format": FORMAT, "version": FORMAT_VERSION, "id": repository_id, "created_at": rfc3339(datetime.now(UTC))}
    places.write_text(root, REPOSITORY_FILE, Path(path, REPOSITORY_FILE), json.dumps(content, indent=2) + "\n")


def _refuse_others(there: set[str], path: str) -> None:
    drafts = {name for name in there if name.startswith((places.DRAFT_PREFIX, PROBE_PREFIX))}
    if others := there - drafts - _OF_THE_FILESYSTEM:
        raise _bad(path, f"it is not empty: it contains {bounded_io.printable(min(others))}")


def must_be(root: int, path: str, repository_id: str | None) -> dict[str, Any]:
    """Id and version of this repository. Raises RepositoryGone, RepositoryBad (another one is there)."""
    described = description(root, path)
    if repository_id is not None and described["id"] != repository_id:
        raise _bad(path, f"its id is {described['id']}, and {repository_id} is expected")
    return described


def description(root: int, path: str) -> dict[str, Any]:
    """Id and version in repository.json. Raises RepositoryGone, RepositoryBad."""
    try:
        text = places.text_of(root, REPOSITORY_FILE, Path(path, REPOSITORY_FILE), MAX_DESCRIPTION_BYTES)
    except FileNotFoundError as error:
        # An empty folder is what stays of a mount point when nothing is mounted.
        if not _entries(root, path) - _OF_THE_FILESYSTEM:
            raise RepositoryGone(path=bounded_io.printable(path), reason="the folder is empty, as if its share was not mounted") from error
        raise _bad(path, f"it has no {REPOSITORY_FILE}") from error
    except ForeignEntry as error:
        raise _bad(path, f"{REPOSITORY_FILE}: {error.facts['reason']}") from error
    return _checked(text, path)


def _checked(text: str, path: str) -> dict[str, Any]:
    try:
        described = json.loads(text)
        if described["format"] != FORMAT:
            raise _bad(path, f"the format in {REPOSITORY_FILE} is {described['format']!r}")
        if not isinstance(described["version"], int) or described["version"] > FORMAT_VERSION:
            raise _bad(path, f"its version is {described['version']!r}, and this service knows {FORMAT_VERSION}")
        return {"id": str(described["id"]), "version": described["version"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _bad(path, f"{REPOSITORY_FILE} cannot be read: {type(error).__name__}: {error}") from error


def _entries(root: int, path: str) -> set[str]:
    with failures.in_repository(path, "listing", is_write=False):
        return set(places.names(root))


def _why_not_writable(root: int, path: str) -> StillpointError | None:
    """Writes a small file: rights say little (root, NFS), and a filesystem may hang for those who write only."""
    name = f"{PROBE_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with failures.in_repository(path, "writing"):
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, places.FILE_MODE, dir_fd=root)
            try:
                os.write(descriptor, bytes(PROBE_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
                os.unlink(name, dir_fd=root)
    except (RepositoryFull, RepositoryReadOnly) as error:
        return error
    return None


def _bad(path: str, reason: str) -> RepositoryBad:
    return RepositoryBad(path=bounded_io.printable(path), reason=reason)


STEPS = {"look": look, "create": create, "put_key": put_key, "list_keys": list_keys}
