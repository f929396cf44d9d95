"""Steps that read sealed points."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from service import bounded_io
from service.errors import ForeignEntry, PointDamaged, RepositoryGone, StillpointError
from service.model.repository import MANIFEST_FILE, SIGNATURE_FILE
from service.repository import durable, failures, manifests, places
from service.repository.partial import DOMAINS
from service.repository.report import Report
from service.repository.stored_state import archived

MAX_SIGNATURE_BYTES = 65536
"""Bytes of a signature file. A larger one is not one of ours."""


def list_points(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Every folder of a sealed point, with an `error` where it cannot be read as one."""
    path = arguments["path"]
    points = []
    for folder in folders(path):
        with suppress(FileNotFoundError):
            points.append(_listed(path, folder))
        report.alive()
    return {"points": points}


def read_point(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Raises PointDamaged (there is no such point, or no manifest), ForeignEntry."""
    report.alive()
    manifest, signature = _texts(arguments["path"], arguments["folder"])
    return {"manifest": manifest, "signature": signature}


def read_file(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The text of a small file of a point, of at most `limit` bytes. Raises PointDamaged (it is not there), ForeignEntry, KeyUnusable."""
    report.alive()
    path, relative = arguments["path"], f"{arguments['folder']}/{arguments['name']}"
    if arguments["name"] != MANIFEST_FILE:
        manifest = manifests.parsed(_texts(path, arguments["folder"])[0])
        content = archived(path, arguments["folder"], manifest, arguments["name"], report)
        if content is not None:
            return {"text": _as_text(content, Path(path, relative), arguments["limit"])}
    between, name = places.split(relative)
    try:
        with places.opened_folder(path, between) as folder:
            return {"text": places.text_of(folder, name, Path(path, relative), arguments["limit"])}
    except FileNotFoundError as error:
        raise _damaged(path, arguments["folder"], relative, "it is missing") from error


def copy_out(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Copy a stored file to `target`, which must not be there, and check it against the manifest on the way.

    A file of an encrypted archive is written as it was before. Raises PointDamaged, TargetFull, StorageRefused, KeyUnusable. The target
    is removed then.
    """
    path, folder, name, target = arguments["path"], arguments["folder"], arguments["name"], arguments["target"]
    manifest = manifests.parsed(_texts(path, folder)[0])
    content = archived(path, folder, manifest, name, report)
    if content is not None:
        return {"bytes": len(content), "sha256": _copied([(content, len(content))], target, len(content), report)}
    stored = next((file for file in manifest.files if file.name == name), None)
    if stored is None:
        raise _damaged(path, folder, f"{folder}/{name}", "the manifest does not name it")
    source = _opened_stored(path, folder, name)
    try:
        if (size := os.fstat(source).st_size) != stored.bytes:
            raise _damaged(path, folder, f"{folder}/{name}", f"it has {size} bytes, and {stored.bytes} were sealed")
        copied = _copied(_pieces(source, Path(path, folder, name)), target, stored.bytes, report)
        if copied != stored.sha256:
            Path(target).unlink()
            raise _damaged(path, folder, f"{folder}/{name}", f"its SHA-256 is {copied}, and {stored.sha256} was sealed")
    finally:
        os.close(source)
    return {"bytes": stored.bytes, "sha256": copied}


def folders(path: str) -> Iterator[str]:
    """Entries that begin with a dot are those of unfinished points, and those of the filesystem."""
    try:
        with places.opened_folder(path, DOMAINS) as domains:
            listed = sorted(name for name in places.names(domains) if not name.startswith("."))
    except FileNotFoundError:
        # No point was ever begun. A repository that is gone is another thing, which a missing root says.
        return
    for domain in listed:
        try:
            with places.opened_folder(path, f"{DOMAINS}/{domain}") as folder:
                names = sorted(name for name in places.names(folder) if not name.startswith("."))
        except FileNotFoundError:
            continue
        except ForeignEntry:
            yield f"{DOMAINS}/{domain}"
            continue
        for name in names:
            yield f"{DOMAINS}/{domain}/{name}"


def _listed(path: str, folder: str) -> dict[str, Any]:
    try:
        manifest, signature = _texts(path, folder)
    except RepositoryGone:
        raise
    except StillpointError as error:
        return {"folder": folder, "manifest": None, "signature": None, "error": {"code": error.code, "facts": dict(error.facts)}}
    return {"folder": folder, "manifest": manifest, "signature": signature, "error": None}


def _texts(path: str, relative: str) -> tuple[str, str | None]:
    shown = Path(path, relative)
    try:
        with places.opened_folder(path, relative) as folder:
            signature = None
            with suppress(FileNotFoundError):
                signature = places.text_of(folder, SIGNATURE_FILE, shown / SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
            return places.text_of(folder, MANIFEST_FILE, shown / MANIFEST_FILE, manifests.MAX_MANIFEST_BYTES), signature
    except FileNotFoundError as error:
        raise _damaged(path, relative, f"{relative}/{MANIFEST_FILE}", "it is missing") from error


def _opened_stored(path: str, folder: str, name: str) -> int:
    between, last = places.split(f"{folder}/{name}")
    try:
        with places.opened_folder(path, between) as opened:
            return places.opened_file(opened, last, Path(path, folder, name))
    except FileNotFoundError as error:
        raise _damaged(path, folder, f"{folder}/{name}", "it is missing") from error


def _as_text(content: bytes, shown: Path, limit: int) -> str:
    if len(content) > limit:
        raise ForeignEntry(path=bounded_io.printable(shown), reason=f"it has more than {limit} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ForeignEntry(path=bounded_io.printable(shown), reason="it is not UTF-8") from error


def _copied(pieces: Iterable[tuple[bytes, int]], target: str, size: int, report: Report) -> str:
    """The SHA-256 of what was copied. `pieces`: each with the bytes so far. The target is removed after an error."""
    try:
        # As for every file of a restore: one that is there is never overwritten.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, places.FILE_MODE)
    except OSError as error:
        raise failures.of_target(error, target, "making", size) from error
    try:
        digest = hashlib.sha256()
        for piece, done in pieces:
            digest.update(piece)
            _write(descriptor, piece, target, size)
            report.progress(done, size)
        try:
            durable.sync(descriptor, report)
        except OSError as error:
            raise failures.of_target(error, target, "syncing", size) from error
    except BaseException:
        with suppress(OSError):
            Path(target).unlink()
        raise
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _pieces(source: int, shown: Path) -> Iterator[tuple[bytes, int]]:
    done = 0
    while True:
        with failures.in_repository(shown, "reading", is_write=False):
            piece = os.pread(source, durable.READ_BYTES, done)
        if not piece:
            return
        done += len(piece)
        yield piece, done


def _write(descriptor: int, piece: bytes, target: str, size: int) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise failures.of_target(error, target, "writing", size) from error


def _damaged(path: str, folder: str, relative: str, reason: str) -> PointDamaged:
    return PointDamaged(point=folder, path=bounded_io.printable(Path(path, relative)), reason=reason, next_good=None)


STEPS = {"list_points": list_points, "read_point": read_point, "read_file": read_file, "copy_out": copy_out}
