"""Steps of the courier that send: the copy itself, one point after the other, and locks that are lengthened.

A copy has the files of the repository under the same names. The manifest of a point is sent last, after all else has arrived: what has
no manifest is not a point. So a copy is a repository, and can be read without the service.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from service import bounded_io
from service.copies.objects import Lock, ObjectStore, Source, SourceDiffers, SourceUnreadable, text_of, verified
from service.copies.stores import document_of, lock_of, opened
from service.errors import CopyArrivedWrong, CopyBad, CopyNotAnswering, PointDamaged
from service.model.manifest import Manifest, StoredFile
from service.model.repository import MANIFEST_FILE, REPOSITORY_FILE, SIGNATURE_FILE
from service.repository import manifests, places, signing
from service.repository.folder import KEY_SUFFIX, KEYS, MAX_DESCRIPTION_BYTES, list_keys, must_be
from service.repository.points import read_point
from service.repository.report import Report


def open_copy(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Make an empty place the copy of this repository, or see that it is that already, and send the public keys.

    `is_known`: it was one before, so that an empty place is a share that is not mounted, and not a new copy.
    Raises CopyBad, CopyNotAnswering, CopyRefused.
    """
    path = arguments["path"]
    with places.opened_folder(path) as root:
        described = must_be(root, path, arguments["id"])
        ours = places.text_of(root, REPOSITORY_FILE, Path(path, REPOSITORY_FILE), MAX_DESCRIPTION_BYTES)
    with opened(arguments["target"], report) as store:
        there = text_of(store, REPOSITORY_FILE, MAX_DESCRIPTION_BYTES)
        is_new = there is None
        if there is not None:
            _must_be_same(store, there, described["id"])
        elif arguments["is_known"]:
            raise CopyNotAnswering(copy=store.shown, what="looking", reason=f"{REPOSITORY_FILE} is gone, as if nothing was mounted there")
        else:
            if (strange := next(iter(store.names("")), None)) is not None:
                raise CopyBad(copy=store.shown, reason=f"it is not empty, and has no {REPOSITORY_FILE}: it has {strange}")
            put_text(store, REPOSITORY_FILE, ours.encode(), None, report)
        known = set(store.names(f"{KEYS}/"))
        for key_id, text in list_keys({"path": path}, report)["keys"].items():
            if (name := f"{KEYS}/{key_id}{KEY_SUFFIX}") not in known:
                put_text(store, name, text.encode(), None, report)
    return {"is_new": is_new}


def send_point(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Send what the copy has not of one sealed point, see that all of it arrived, and send the manifest.

    `manifest_digest`: of the manifest on record, or None. `lock`: of each object, or None.
    Raises PointDamaged (the point here is not as it was sealed, and the copy gets no manifest of it), CopyArrivedWrong and the errors
    of both places.
    """
    path, folder, lock = arguments["path"], arguments["folder"], lock_of(arguments.get("lock"))
    may_lengthen = bool(arguments.get("may_lengthen"))
    texts = read_point({"path": path, "folder": folder}, report)
    manifest = manifests.parsed(texts["manifest"])
    if arguments.get("manifest_digest") not in (None, signing.digest(texts["manifest"].encode())):
        raise _damaged(path, folder, MANIFEST_FILE, "it is not the manifest that is on record")
    with opened(arguments["target"], report) as store:
        point = _Point(store, path, folder, manifest.point_id, lock, may_lengthen, report, sum(file.bytes for file in manifest.files))
        ways = [point.send(file) for file in manifest.files]
        if texts["signature"] is not None:
            put_text(store, f"{folder}/{SIGNATURE_FILE}", texts["signature"].encode(), lock, report, may_lengthen=may_lengthen)
        put_text(store, f"{folder}/{MANIFEST_FILE}", texts["manifest"].encode(), lock, report, may_lengthen=may_lengthen)
        kept = _least_lock(store, folder, manifest) if lock is not None else None
    return {
        "bytes": sum(file.bytes for file in manifest.files),
        "sent_bytes": point.sent_bytes,
        "files": len(manifest.files),
        "verified_by": "checksum" if all(way == "checksum" for way in ways) else "content",
        "lock": document_of(kept),
    }


def lengthen(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Lock all objects of a point at least until `lock` says. A lock that reaches further stays. Raises LockNotOffered, CopyRefused."""
    lock = lock_of(arguments["lock"])
    assert lock is not None
    changed = 0
    with opened(arguments["target"], report) as store:
        for name in list(store.names(f"{arguments['folder']}/")):
            changed += locked_at_least(store, name, lock, may_lengthen=True)
            report.alive()
    return {"changed": changed}


@dataclass
class _Point:
    """The files of one point on their way."""

    store: ObjectStore
    path: str
    folder: str
    point_id: str
    lock: Lock | None
    may_lengthen: bool
    report: Report
    total_bytes: int
    sent_bytes: int = 0
    _done: int = 0

    def send(self, file: StoredFile) -> str:
        """Returns how it was verified: `checksum` or `content`."""
        name = f"{self.folder}/{file.name}"
        done = self._done
        if (way := self._is_there(name, file)) is not None:
            locked_at_least(self.store, name, self.lock, may_lengthen=self.may_lengthen)
            self._done = done + file.bytes
            return way
        self._done = done
        with self._source(file) as source:
            checksum = self.store.put(name, source, self.lock)
        self.sent_bytes += file.bytes
        self._done = done + file.bytes
        way = verified(self.store, replace(file, name=name), checksum, self.report)
        # Some stores take no lock for an object of parts.
        locked_at_least(self.store, name, self.lock, may_lengthen=self.may_lengthen)
        return way

    def _is_there(self, name: str, file: StoredFile) -> str | None:
        """How it was verified. None: an earlier try has not sent it, or it is another content."""
        there = self.store.head(name)
        if there is None or there.size != file.bytes:
            return None
        checksum = None
        if there.checksum is not None:
            with self._source(file) as source:
                checksum = self.store.checksum_of(source)
        try:
            return verified(self.store, replace(file, name=name), checksum, self.report)
        except CopyArrivedWrong:
            return None

    @contextmanager
    def _source(self, file: StoredFile) -> Iterator[Source]:
        """Errors of reading here are those of the repository, and what differs is damage of the point here."""
        between, last = places.split(f"{self.folder}/{file.name}")
        shown = Path(self.path, self.folder, file.name)
        try:
            with places.opened_folder(self.path, between) as folder:
                descriptor = places.opened_file(folder, last, shown)
        except FileNotFoundError as error:
            raise self._damaged(file.name, "it is missing") from error
        try:
            if (size := os.fstat(descriptor).st_size) != file.bytes:
                raise self._damaged(file.name, f"it has {size} bytes, and {file.bytes} were sealed")
            yield Source(descriptor, replace(file, name=bounded_io.printable(shown)), self._note, self.report)
        except SourceDiffers as differs:
            raise self._damaged(file.name, f"its SHA-256 is {differs.sha256}, and {file.sha256} was sealed") from differs
        except SourceUnreadable as unreadable:
            raise unreadable.reason from unreadable
        finally:
            os.close(descriptor)

    def _note(self, count: int) -> None:
        self._done += count
        self.report.progress(min(self._done, self.total_bytes), self.total_bytes)

    def _damaged(self, name: str, reason: str) -> PointDamaged:
        path = bounded_io.printable(Path(self.path, self.folder, name))
        return PointDamaged(point=self.point_id, path=path, reason=reason, next_good=None)


def locked_at_least(store: ObjectStore, name: str, lock: Lock | None, *, may_lengthen: bool) -> bool:
    """Lengthen the lock of an object where it ends before this one. Returns whether it was changed.

    `may_lengthen` False: nothing is tried, as there are stores that answer it by replacing the object. Raises CopyArrivedWrong: the object
    is not as it was, or its lock is not lengthened.
    """
    before = store.head(name)
    if lock is None or not may_lengthen or before is None or (before.lock is not None and before.lock.until >= lock.until):
        return False
    store.lock(name, lock)
    after = store.head(name)
    if after is None or (after.size, after.checksum) != (before.size, before.checksum):
        raise CopyArrivedWrong(copy=store.shown, name=name, reason="the store replaced it when its lock was lengthened")
    if after.lock is None or after.lock.until < lock.until - timedelta(seconds=1):
        raise CopyArrivedWrong(copy=store.shown, name=name, reason="the store said that its lock is longer, and it is not")
    return True


def put_text(store: ObjectStore, name: str, content: bytes, lock: Lock | None, report: Report, *, may_lengthen: bool = False) -> None:
    """A small object, which is not sent again where it is there. Raises CopyArrivedWrong."""
    if text_of(store, name, max(len(content), manifests.MAX_MANIFEST_BYTES)) != content:
        source = Source.of_text(content, report)
        try:
            checksum = store.put(name, source, lock)
            verified(store, StoredFile(name, source.size, source.sha256), checksum, report)
        finally:
            source.close()
    else:
        locked_at_least(store, name, lock, may_lengthen=may_lengthen)


def _least_lock(store: ObjectStore, folder: str, manifest: Manifest) -> Lock | None:
    """The lock of the point's objects that ends first, as the store shows them, which proves nothing. None: one of them has none."""
    heads = [store.head(f"{folder}/{name}") for name in (MANIFEST_FILE, *(file.name for file in manifest.files))]
    locks = [head.lock for head in heads if head is not None and head.lock is not None]
    return min(locks, key=lambda lock: lock.until) if len(locks) == len(heads) else None


def _must_be_same(store: ObjectStore, there: bytes, repository_id: str) -> None:
    try:
        copy_of = str(json.loads(there)["id"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CopyBad(copy=store.shown, reason=f"its {REPOSITORY_FILE} cannot be read: {type(error).__name__}") from error
    if copy_of != repository_id:
        raise CopyBad(copy=store.shown, reason=f"it is the copy of the repository {copy_of}, and {repository_id} is expected")


def _damaged(path: str, folder: str, name: str, reason: str) -> PointDamaged:
    return PointDamaged(point=folder, path=bounded_io.printable(Path(path, folder, name)), reason=reason, next_good=None)


STEPS = {"open_copy": open_copy, "send_point": send_point, "lengthen": lengthen}
