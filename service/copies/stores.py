"""The store of a target."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from service.clock import rfc3339
from service.copies.folder_store import FolderStore
from service.copies.objects import Lock, ObjectStore
from service.copies.rclone_store import RcloneStore
from service.copies.s3_store import S3Store
from service.model.copy_target import FolderTarget, LockMode, RcloneTarget, target_of
from service.repository.report import Report


@contextmanager
def opened(target: Mapping[str, Any], report: Report) -> Iterator[ObjectStore]:
    """`report.key`: what the key of the copy names. Raises CopyTargetInvalid, CopyToolMissing, CopyRefused, KeyUnusable."""
    store = _store(target, report)
    try:
        yield store
    finally:
        store.close()


def _store(document: Mapping[str, Any], report: Report) -> ObjectStore:
    target = target_of(document)
    if isinstance(target, FolderTarget):
        return FolderStore(target, report)
    if isinstance(target, RcloneTarget):
        return RcloneStore(target, report.key, report)
    return S3Store(target, report.key, report)


def lock_of(document: Mapping[str, Any] | None) -> Lock | None:
    """As the arguments of a step have it: {"mode", "until"}."""
    if document is None:
        return None
    return Lock(LockMode(document["mode"]), datetime.fromisoformat(document["until"]).astimezone(UTC))


def document_of(lock: Lock | None) -> dict[str, Any] | None:
    return None if lock is None else {"mode": lock.mode.value, "until": rfc3339(lock.until)}
