"""The steps that make a damaged file of a sealed point again, byte for byte as it was sealed.

Never a wrong repair: a new file takes the place of the damaged one only if its SHA-256 is the sealed one, as it is read back from the
storage. So the manifest and its signature stay what they are, and no point above notices anything. Nothing is changed in place.

1. The new file is made in a folder of its own beside the point, synced and read back. A note says where its bytes are from.
2. The damaged file gets a second name in that folder, and the new one takes its place by a rename. It is read back once more.
3. Only then the damaged file is removed. A process that dies at any instant leaves the damaged file or the healed one in its place.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.errors import RepositoryFull
from service.repository import failures, places
from service.repository.healing_ways import DRAFT, DamagedFile, NotHealed, Sources
from service.repository.report import Report

KEPT = "damaged"
"""The second name of the damaged file, until the new one has been read back in its place."""
NOTE_PREFIX, NOTE_SUFFIX = "note-", ".json"
MAX_NOTE_BYTES = 16 << 20
"""Bytes of a note. A larger file is not one of ours."""


def heal_file(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """`folder`, `file`: what is damaged. `partial`: where the new file is made. `sha256`: of a manifest, which no manifest names. `text`:
    what the caller knows that the file held. `live`: files of live disks, by target.

    Returns `healed`, `reason`, and `sources`: where the bytes are from. Raises errors of the storage, RepositoryFull, KeyUnusable.
    """
    try:
        sources = _Healing(DamagedFile(arguments, report)).done()
    except NotHealed as failed:
        return {"healed": False, "reason": failed.reason, "sources": []}
    return {"healed": True, "reason": None, "sources": list(sources)}


def heal_notes(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """What an earlier attempt has healed, as it noted before each file took its place."""
    report.alive()
    try:
        with places.opened_folder(arguments["path"], arguments["partial"]) as work:
            return {"notes": list(_notes(work, Path(arguments["path"], arguments["partial"])))}
    except FileNotFoundError:
        return {"notes": []}


def _notes(work: int, shown: Path) -> Iterator[dict[str, Any]]:
    for name in sorted(places.names(work)):
        if name.startswith(NOTE_PREFIX) and name.endswith(NOTE_SUFFIX):
            with suppress(ValueError):
                yield json.loads(places.text_of(work, name, shown / name, MAX_NOTE_BYTES))


class _Healing:
    """One file, in the folder `partial` of the step."""

    def __init__(self, damaged: DamagedFile) -> None:
        self._damaged = damaged
        self._shown = damaged.shown
        self._work_shown = Path(damaged.path, damaged.partial)

    def done(self) -> Sources:
        """Where the bytes are from. Raises NotHealed."""
        damaged = self._damaged
        with places.opened_folder(damaged.path, damaged.partial) as work:
            if damaged.is_right_in_place():
                return self._noted(work)
            if not self._is_made_already(work):
                self._write_note(work, self._made(work))
            self._take_its_place(work)
            return self._noted(work)

    def _made(self, work: int) -> Sources:
        self._must_fit(work)
        _remove(work, DRAFT)
        draft = places.opened_file(work, DRAFT, self._damaged.draft_path(), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            sources = self._damaged.made_again(draft)
            self._damaged.must_be_read_back(draft)
        finally:
            os.close(draft)
        return sources

    def _is_made_already(self, work: int) -> bool:
        """By a try that died before the exchange, or in it."""
        if not self._notes_of_it(work):
            return False
        try:
            draft = places.opened_file(work, DRAFT, self._damaged.draft_path())
        except FileNotFoundError:
            return False
        try:
            return self._damaged.is_right(draft)
        finally:
            os.close(draft)

    def _notes_of_it(self, work: int) -> list[dict[str, Any]]:
        its = (self._damaged.folder, self._damaged.name)
        return [note for note in _notes(work, self._work_shown) if (note["folder"], note["file"]) == its]

    def _noted(self, work: int) -> Sources:
        notes = self._notes_of_it(work)
        sources: Sources = notes[-1]["sources"] if notes else [{"source": "itself"}]
        return sources

    def _write_note(self, work: int, sources: Sources) -> None:
        number = sum(name.startswith(NOTE_PREFIX) for name in places.names(work))
        name = f"{NOTE_PREFIX}{number:04}{NOTE_SUFFIX}"
        note = {"folder": self._damaged.folder, "file": self._damaged.name, "sources": list(sources)}
        places.write_text(work, name, self._work_shown / name, json.dumps(note))

    def _must_fit(self, work: int) -> None:
        """Raises RepositoryFull."""
        status = os.fstatvfs(work)
        free, needed = status.f_bavail * status.f_frsize, max(self._damaged.sealed.bytes, 0)
        if free < needed:
            raise RepositoryFull(path=str(self._shown), needed_bytes=needed, free_bytes=free)

    def _take_its_place(self, work: int) -> None:
        """Raises NotHealed: the storage shows something else in its place. The damaged file is put back then."""
        with self._its_folder() as (folder, name), failures.in_repository(self._shown, "replacing"):
            is_there = _keep(folder, name, work)
            if is_there:
                _as_before(work)
            os.rename(DRAFT, name, src_dir_fd=work, dst_dir_fd=folder)
            places.sync_folder(folder, self._shown.parent)
            places.sync_folder(work, self._work_shown)
            descriptor = places.opened_file(folder, name, self._shown)
            try:
                self._damaged.must_be_read_back(descriptor)
            except NotHealed:
                if is_there:
                    os.rename(KEPT, name, src_dir_fd=work, dst_dir_fd=folder)
                raise
            finally:
                os.close(descriptor)
            _remove(work, KEPT)

    @contextmanager
    def _its_folder(self) -> Iterator[tuple[int, str]]:
        between, name = places.split(f"{self._damaged.folder}/{self._damaged.name}")
        with places.opened_folder(self._damaged.path, between, is_made=True) as folder:
            yield folder, name


def _keep(folder: int, name: str, work: int) -> bool:
    """Give the damaged file a second name. Where the filesystem has no second names, it is moved there. False: nothing is there."""
    try:
        is_file = stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode)
        _remove(work, KEPT)
        if is_file:
            with suppress(OSError):
                os.link(name, KEPT, src_dir_fd=folder, dst_dir_fd=work, follow_symlinks=False)
                return True
        os.rename(name, KEPT, src_dir_fd=folder, dst_dir_fd=work)
    except FileNotFoundError:
        return False
    return True


def _as_before(work: int) -> None:
    """The rights of the file, also those of QEMU where a domain was started on it (`reach`)."""
    if not stat.S_ISREG(os.lstat(KEPT, dir_fd=work).st_mode):
        return
    old = os.open(KEPT, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work)
    new = os.open(DRAFT, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work)
    try:
        status = os.fstat(old)
        with suppress(OSError):
            os.fchown(new, status.st_uid, status.st_gid)
            os.fchmod(new, stat.S_IMODE(status.st_mode))
            for name in os.listxattr(old):
                os.setxattr(new, name, os.getxattr(old, name))
    finally:
        os.close(old)
        os.close(new)


def _remove(work: int, name: str) -> None:
    """What another program has put in the place of a file, a folder say, stays in the unfinished folder, which is removed as a whole."""
    with suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=work)
