"""Steps that make a point of a partial folder: checksums and sync, then the manifest, then one rename."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from service import bounded_io
from service.errors import ForeignEntry, PointDamaged, RepositoryBad, StillpointError
from service.model.manifest import Manifest
from service.model.repository import MANIFEST_FILE, PARTIAL_PREFIX, SIGNATURE_FILE
from service.repository import durable, failures, manifests, places
from service.repository.partial import DONE_SUFFIX, MARKER
from service.repository.report import Report
from service.repository.stamps import stamp_of

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def seal(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """SHA-256 of every stored file, each of which is on the disk afterwards.

    `files`: the names that must be there, and no others. Left out: whatever is there. `known`: SHA-256 of files that were taken while
    they were written, which are not read again. Raises ForeignEntry, PointDamaged.
    """
    path, partial = arguments["path"], arguments["partial"]
    with places.opened_folder(path, partial) as folder:
        sizes = dict(stored_files(folder, Path(path, partial)))
        if arguments.get("files") is not None:
            _compare_names(set(arguments["files"]), set(sizes), Path(path, partial))
        known = arguments.get("known") or {}
        progress = _Progress(report, sum(sizes.values()))
        opened = {name: _opened(folder, name, Path(path, partial, name)) for name in sorted(sizes)}
        try:
            for name, descriptor in opened.items():
                with failures.in_repository(Path(path, partial, name), "syncing"):
                    durable.begin_writing_back(descriptor)
            files = [_sealed(name, descriptor, Path(path, partial, name), progress, known.get(name)) for name, descriptor in opened.items()]
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
        _sync_folders(folder, Path(path, partial))
    return {"files": files}


def publish(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Write the manifest and its signature, and give the folder its name. One that is published with the same manifest is left as it is.

    Raises RepositoryBad (another point has this name), PointDamaged and ForeignEntry (the folder is not what the manifest says).
    """
    path, partial, published = arguments["path"], arguments["partial"], arguments["folder"]
    between, name = places.split(published)
    with places.opened_folder(path, between) as parent:
        shown = Path(path, published)
        if (earlier := manifest_at(parent, name, shown)) is not None:
            if earlier != arguments["manifest"]:
                raise RepositoryBad(path=bounded_io.printable(shown), reason="another point is published under this name")
            # The earlier try may have ended between the rename and the sync, and without it the rename is lost with the power.
            places.sync_folder(parent, shown.parent)
            return {"folder": published, "was_published": True}
        write_manifest(path, partial, arguments["manifest"], arguments.get("signature"), report)
        with failures.in_repository(shown, "publishing"):
            os.rename(_renamed_from(partial, published), name, src_dir_fd=parent, dst_dir_fd=parent)
        places.sync_folder(parent, shown.parent)
    # A rename of the folder does not change its files.
    return {"folder": published, "was_published": False, "stamp": stamp_of(path, published, manifests.parsed(arguments["manifest"]))}


def stored_files(folder: int, shown: Path, below: str = "", *, with_marks: bool = False) -> Iterator[tuple[str, int]]:
    """Name and size of each file of a point, without manifest and signature. Raises ForeignEntry.

    `with_marks`: also those of an unfinished point, which a sealed one does not have.
    """
    for name in sorted(places.names(folder)):
        relative = f"{below}{name}"
        status = os.lstat(name, dir_fd=folder)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
            try:
                yield from stored_files(inner, shown / name, f"{relative}/", with_marks=with_marks)
            finally:
                os.close(inner)
        elif not stat.S_ISREG(status.st_mode):
            raise places.foreign(folder, name, shown / name)
        elif below or not (name in (MANIFEST_FILE, SIGNATURE_FILE) or (_is_mark(name) and not with_marks)):
            yield relative, status.st_size


def _is_mark(name: str) -> bool:
    return name == MARKER or name.endswith(DONE_SUFFIX) or name.startswith(places.DRAFT_PREFIX)


def write_manifest(path: str, partial: str, manifest: str, signature: str | None, report: Report) -> None:
    """Into a folder that holds exactly what the manifest names. Raises PointDamaged, ForeignEntry."""
    shown = Path(path, partial)
    with places.opened_folder(path, partial) as folder:
        _compare(manifests.parsed(manifest), dict(stored_files(folder, shown)), shown)
        report.alive()
        places.write_text(folder, MANIFEST_FILE, shown / MANIFEST_FILE, manifest)
        if signature is not None:
            places.write_text(folder, SIGNATURE_FILE, shown / SIGNATURE_FILE, signature)
        with failures.in_repository(shown, "removing a mark from"):
            for name in places.names(folder):
                if _is_mark(name):
                    os.unlink(name, dir_fd=folder)
        places.sync_folder(folder, shown)
        report.alive()


def _compare(manifest: Manifest, sizes: dict[str, int], shown: Path) -> None:
    _compare_names({file.name for file in manifest.files}, set(sizes), shown)
    for file in manifest.files:
        if sizes[file.name] != file.bytes:
            reason = f"it has {sizes[file.name]} bytes, and {file.bytes} were sealed"
            raise PointDamaged(point=manifest.point_id, path=bounded_io.printable(shown / file.name), reason=reason, next_good=None)


def _compare_names(expected: set[str], there: set[str], shown: Path) -> None:
    if strange := there - expected:
        raise ForeignEntry(path=bounded_io.printable(shown / min(strange)), reason="the service did not make this file")
    if missing := expected - there:
        path = bounded_io.printable(shown / min(missing))
        raise PointDamaged(point=shown.name.removeprefix(PARTIAL_PREFIX), path=path, reason="it is missing", next_good=None)


def _renamed_from(partial: str, published: str) -> str:
    """Both names are in one folder: backing names are relative to it."""
    folder, _, name = partial.rpartition("/")
    if folder != published.rpartition("/")[0] or not name.startswith(PARTIAL_PREFIX):
        raise ForeignEntry(path=bounded_io.printable(partial), reason=f"not the folder of the unfinished point {published}")
    return name


def manifest_at(parent: int, name: str, shown: Path) -> str | None:
    """The manifest of what has this name already. An empty text: something without one. None: nothing has this name."""
    try:
        mode = os.lstat(name, dir_fd=parent).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(mode):
        raise places.foreign(parent, name, shown)
    folder = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    try:
        return places.text_of(folder, MANIFEST_FILE, shown / MANIFEST_FILE, manifests.MAX_MANIFEST_BYTES)
    except (FileNotFoundError, StillpointError):
        return ""
    finally:
        os.close(folder)


class _Progress:
    def __init__(self, report: Report, total_bytes: int) -> None:
        self.report = report
        self._total = total_bytes
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        self.report.progress(self._done, self._total)


def _opened(folder: int, name: str, shown: Path) -> int:
    """A file that may be in folders below, none of which is followed if it is a symbolic link."""
    *between, last = places.parts(name)
    descriptor = os.dup(folder)
    try:
        for each in between:
            inner = os.open(each, _FOLDER_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        return places.opened_file(descriptor, last, shown)
    finally:
        os.close(descriptor)


def _sealed(name: str, descriptor: int, shown: Path, progress: _Progress, known: str | None) -> dict[str, Any]:
    if known is None:
        with failures.in_repository(shown, "reading", is_write=False):
            sha256, count = durable.sha256_of(descriptor, progress.add)
    else:
        sha256, count = known, os.fstat(descriptor).st_size
    with failures.in_repository(shown, "syncing"):
        durable.sync(descriptor, progress.report)
    if known is not None:
        progress.add(count)
    return {"name": name, "bytes": count, "sha256": sha256}


def _sync_folders(folder: int, shown: Path) -> None:
    for name in places.names(folder):
        with suppress(NotADirectoryError):
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
            try:
                _sync_folders(inner, shown / name)
            finally:
                os.close(inner)
    places.sync_folder(folder, shown)


STEPS = {"seal": seal, "publish": publish}
