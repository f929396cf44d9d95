"""Steps of the courier that bring points back, and that look at what a copy has."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.copies.objects import ObjectStore, sha256_of, text_of
from service.copies.stores import document_of, opened
from service.errors import CopyDamaged, CopyIncomplete, ForeignEntry, StillpointError
from service.model.manifest import Manifest, StoredFile
from service.model.repository import MANIFEST_FILE, SIGNATURE_FILE
from service.repository import durable, manifests, places, seal, signing
from service.repository.failures import in_repository
from service.repository.partial import DOMAINS, begin_point, drop_partial
from service.repository.points import MAX_SIGNATURE_BYTES
from service.repository.report import Report


def list_copy(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The manifests of all whole points on the copy, each with its digest; `unreadable`: folders whose manifest cannot be read."""
    readable, unreadable = [], []
    with opened(arguments["target"], report) as store:
        for name in list(store.names(f"{DOMAINS}/")):
            folder, _, last = name.rpartition("/")
            if last != MANIFEST_FILE or folder.count("/") != 2:
                continue
            try:
                manifest, text = _manifest_of(store, folder)
            except StillpointError as error:
                unreadable.append({"folder": folder, "reason": error.detail})
            else:
                readable.append(_listed(manifest, text))
            report.alive()
    return {"points": readable, "unreadable": unreadable}


def check_copy(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Read a point on the copy back, and hold every byte against its manifest. Raises CopyDamaged, CopyIncomplete."""
    with opened(arguments["target"], report) as store:
        manifest, _ = _expected(store, arguments)
        total, done = sum(file.bytes for file in manifest.files), 0
        for file in manifest.files:
            sha256 = sha256_of(store, f"{manifest.folder}/{file.name}", report)
            if sha256 != file.sha256:
                raise _damaged(store, manifest, file, "it is missing" if sha256 is None else f"its SHA-256 is {sha256}")
            done += file.bytes
            report.progress(done, total)
        there = store.head(f"{manifest.folder}/{MANIFEST_FILE}")
    return {"bytes": total, "files": len(manifest.files), "lock": document_of(there.lock if there is not None else None)}


def fetch_point(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Bring a point back into the repository. `is_there`: the repository has it already, and nothing was read.

    What an earlier try has brought stays. The point is published as a backup publishes one: after all of its files are right and on the
    disk. Raises CopyDamaged, CopyIncomplete, and the errors of both places.
    """
    path, folder = arguments["path"], arguments["folder"]
    domain_id, name = _names_in(folder)
    begun = begin_point({**arguments, "domain_id": domain_id, "name": name}, report)
    partial, fetched = begun["partial"], 0
    if begun["is_published"]:
        _drop_empty(path, partial, report)
        return {"is_there": True, "bytes": 0, "fetched_bytes": 0}
    with opened(arguments["target"], report) as store:
        manifest, text = _expected(store, arguments)
        total, done = sum(file.bytes for file in manifest.files), 0
        _drop_strange(path, partial, manifest)
        for file in manifest.files:
            if not _is_right(path, partial, file, report):
                _bring(store, Path(path, partial), manifest, file, report)
                fetched += file.bytes
            done += file.bytes
            report.progress(done, total)
        signature = text_of(store, f"{folder}/{SIGNATURE_FILE}", MAX_SIGNATURE_BYTES)
    published = {"path": path, "partial": partial, "folder": folder, "manifest": text}
    seal.publish({**published, "signature": signature.decode() if signature is not None else None}, report)
    return {"is_there": False, "bytes": total, "fetched_bytes": fetched}


def _expected(store: ObjectStore, arguments: dict[str, Any]) -> tuple[Manifest, str]:
    """Raises CopyDamaged: the manifest is not the one that was sent. CopyIncomplete: there is none."""
    manifest, text = _manifest_of(store, arguments["folder"])
    expected = arguments.get("manifest_digest")
    if expected not in (None, signing.digest(text.encode())) or manifest.folder != arguments["folder"]:
        name = f"{arguments['folder']}/{MANIFEST_FILE}"
        raise CopyDamaged(copy=store.shown, point=manifest.point_id, name=name, reason="it is not the manifest that was sent")
    return manifest, text


def _manifest_of(store: ObjectStore, folder: str) -> tuple[Manifest, str]:
    name = f"{folder}/{MANIFEST_FILE}"
    content = text_of(store, name, manifests.MAX_MANIFEST_BYTES)
    if content is None:
        raise CopyIncomplete(copy=store.shown, point=folder)
    try:
        text = content.decode()
        return manifests.parsed(text), text
    except (UnicodeDecodeError, StillpointError) as error:
        raise CopyDamaged(copy=store.shown, point=folder, name=name, reason=f"it cannot be read: {error}") from error


def _listed(manifest: Manifest, text: str) -> dict[str, Any]:
    return {
        "id": manifest.point_id,
        "folder": manifest.folder,
        "domain_id": manifest.domain_id,
        "domain_name": manifest.domain_name,
        "point_in_time_at": manifest.point_in_time_at,
        "verdict": manifest.verdict,
        "parents": list(manifest.parents),
        "bytes": sum(file.bytes for file in manifest.files),
        "manifest_digest": signing.digest(text.encode()),
    }


def _names_in(folder: str) -> tuple[str, str]:
    names = places.parts(folder)
    if len(names) != 3 or names[0] != DOMAINS:
        raise ForeignEntry(path=folder, reason="not the folder of a point")
    return names[1], names[2]


def _bring(store: ObjectStore, into: Path, manifest: Manifest, file: StoredFile, report: Report) -> None:
    """`into`: the partial folder."""
    path, partial = str(into.parents[2]), "/".join(into.parts[-3:])
    between, last = places.split(f"{partial}/{file.name}")
    shown, digest, count = Path(path, partial, file.name), hashlib.sha256(), 0
    try:
        with (
            places.opened_folder(path, partial) as top,
            places.opened_folder(path, between, is_made=True) as folder,
            places.drafted(top, folder, last, shown) as draft,
        ):
            for piece in store.pieces(f"{manifest.folder}/{file.name}"):
                report.wait_for_pace(len(piece))
                digest.update(piece)
                count += len(piece)
                if count > file.bytes:
                    raise _damaged(store, manifest, file, f"it has more than {file.bytes} bytes")
                _write(draft, piece, shown)
                report.alive()
            if digest.hexdigest() != file.sha256:
                raise _damaged(store, manifest, file, f"its SHA-256 is {digest.hexdigest()}, and {file.sha256} was sealed")
            with in_repository(shown, "syncing"):
                durable.sync(draft, report)
    except FileNotFoundError as error:
        raise _damaged(store, manifest, file, "it is missing") from error


def _write(draft: int, piece: bytes, shown: Path) -> None:
    rest = memoryview(piece)
    with in_repository(shown, "writing"):
        while rest:
            rest = rest[os.write(draft, rest) :]


def _is_right(path: str, partial: str, file: StoredFile, report: Report) -> bool:
    """An earlier try has brought the file."""
    between, last = places.split(f"{partial}/{file.name}")
    shown = Path(path, partial, file.name)
    try:
        with places.opened_folder(path, between) as folder:
            descriptor = places.opened_file(folder, last, shown)
    except FileNotFoundError:
        return False
    try:
        with in_repository(shown, "reading", is_write=False):
            if os.fstat(descriptor).st_size != file.bytes:
                return False
            return durable.sha256_of(descriptor, lambda _: report.alive())[0] == file.sha256
    finally:
        os.close(descriptor)


def _drop_strange(path: str, partial: str, manifest: Manifest) -> None:
    """What an earlier try may have left that is not of this point, such as a file of another manifest."""
    wanted = {file.name for file in manifest.files}
    with places.opened_folder(path, partial) as folder:
        for name in list(_strange(folder, Path(path, partial), wanted)):
            places.split(name)
            Path(path, partial, name).unlink()


def _strange(folder: int, shown: Path, wanted: set[str]) -> Iterator[str]:
    yield from (name for name, _ in seal.stored_files(folder, shown) if name not in wanted)


def _drop_empty(path: str, partial: str, report: Report) -> None:
    with suppress(StillpointError):
        drop_partial({"path": path, "partial": partial}, report)


def _damaged(store: ObjectStore, manifest: Manifest, file: StoredFile, reason: str) -> CopyDamaged:
    return CopyDamaged(copy=store.shown, point=manifest.point_id, name=f"{manifest.folder}/{file.name}", reason=reason)


STEPS = {"list_copy": list_copy, "check_copy": check_copy, "fetch_point": fetch_point}
