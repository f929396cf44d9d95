"""A copy in another folder: a disk, or a share that is mounted. Each object appears by one rename, after it is on the disk."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service import bounded_io
from service.copies.objects import PIECE_BYTES, Lock, Source, StoredObject
from service.errors import CopyBad, CopyNotAnswering, CopyRefused, ForeignEntry, LockNotOffered, RepositoryGone, StillpointError
from service.model.copy_target import FolderTarget
from service.repository import durable, failures, places
from service.repository.report import Report


class FolderStore:
    """No symbolic link inside the folder is followed. The folder itself must be there: an absent one is a share that is not mounted."""

    def __init__(self, target: FolderTarget, report: Report) -> None:
        self.shown = str(target)
        self._path = target.path
        self._report = report

    def put(self, name: str, source: Source, lock: Lock | None = None) -> str | None:
        if lock is not None:
            raise self._no_lock()
        between, last = places.split(name)
        shown = Path(self._path, name)
        with self._errors("writing", name), places.opened_folder(self._path, between, is_made=True) as folder:
            self._remove_drafts(folder)
            with places.drafted(folder, folder, last, shown) as draft:
                for piece in source.pieces():
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[os.write(draft, rest) :]
                durable.sync(draft, self._report)
                # What is read back later comes from the disk, not from the memory of this host.
                os.posix_fadvise(draft, 0, 0, os.POSIX_FADV_DONTNEED)
        return None

    def head(self, name: str, version: str | None = None) -> StoredObject | None:  # noqa: ARG002 - a folder keeps no versions
        between, last = places.split(name)
        try:
            with self._errors("looking at", name), places.opened_folder(self._path, between) as folder:
                descriptor = places.opened_file(folder, last, Path(self._path, name))
                try:
                    return StoredObject(name, os.fstat(descriptor).st_size)
                finally:
                    os.close(descriptor)
        except FileNotFoundError:
            return None

    def pieces(self, name: str, version: str | None = None) -> Iterator[bytes]:  # noqa: ARG002
        between, last = places.split(name)
        with self._errors("reading", name):
            with places.opened_folder(self._path, between) as folder:
                descriptor = places.opened_file(folder, last, Path(self._path, name))
            try:
                while piece := os.read(descriptor, PIECE_BYTES):
                    yield piece
            finally:
                os.close(descriptor)

    def names(self, prefix: str) -> Iterator[str]:
        """Without drafts, and without what the filesystem has for itself."""
        with self._errors("listing", prefix):
            yield from sorted(name for name in self._below("") if name.startswith(prefix))

    def checksum_of(self, source: Source) -> str | None:  # noqa: ARG002 - a folder says nothing of the content
        return None

    def delete(self, name: str, version: str | None = None, *, bypass: bool = False) -> None:  # noqa: ARG002
        between, last = places.split(name)
        with suppress(FileNotFoundError), self._errors("removing", name), places.opened_folder(self._path, between) as folder:
            os.unlink(last, dir_fd=folder)
            places.sync_folder(folder, Path(self._path, between))

    def purge(self, prefix: str) -> int:  # noqa: ARG002 - no earlier contents are kept
        return 0

    def lock(self, name: str, lock: Lock, version: str | None = None, *, bypass: bool = False) -> None:  # noqa: ARG002
        raise self._no_lock()

    def close(self) -> None:
        """Nothing is open between calls."""

    def _no_lock(self) -> LockNotOffered:
        return LockNotOffered(copy=self.shown, reason="who can write to a folder can remove what is in it")

    def _below(self, between: str) -> Iterator[str]:
        with places.opened_folder(self._path, between) as folder:
            for name in places.names(folder):
                if name.startswith(".") or name == "lost+found":
                    continue
                relative = f"{between}/{name}" if between else name
                try:
                    yield from self._below(relative)
                except ForeignEntry:
                    # A file: it cannot be entered.
                    yield relative
                self._report.alive()

    @staticmethod
    def _remove_drafts(folder: int) -> None:
        """A put that was killed leaves one. One courier works at a copy at a time."""
        for name in places.names(folder):
            if name.startswith(places.DRAFT_PREFIX):
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)

    @contextmanager
    def _errors(self, what: str, name: str) -> Iterator[None]:
        """Errors of a folder as those of a copy. FileNotFoundError passes."""
        try:
            yield
        except FileNotFoundError:
            raise
        except RepositoryGone as error:
            raise CopyNotAnswering(copy=self.shown, what=f"{what} {name}", reason=str(error.facts["reason"])) from error
        except ForeignEntry as error:
            raise CopyBad(copy=self.shown, reason=f"{error.facts['path']} is not of the service: {error.facts['reason']}") from error
        except StillpointError as error:
            raise self._error_of(error, what, name) from error
        except OSError as error:
            if error.errno in failures.NOT_ANSWERING:
                raise CopyNotAnswering(copy=self.shown, what=f"{what} {name}", reason=bounded_io.reason_of(error)) from error
            reason, answer = bounded_io.reason_of(error), errno.errorcode.get(error.errno or 0)
            raise CopyRefused(copy=self.shown, what=f"{what} {name}", reason=reason, answer=answer) from error

    def _error_of(self, error: StillpointError, what: str, name: str) -> StillpointError:
        if error.code.startswith("copy_"):
            return error
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in failures.NOT_ANSWERING:
            return CopyNotAnswering(copy=self.shown, what=f"{what} {name}", reason=error.detail)
        return CopyRefused(copy=self.shown, what=f"{what} {name}", reason=error.detail, answer=error.code)
