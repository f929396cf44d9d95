"""Whether what was copied into the disks of an instant restore is really in them, and what is done where it is not.

When a block pull ends, QEMU takes the file below out of the header of the qcow2 at once (`stream_prepare` in block/stream.c). The tables
that say where the copied clusters are may be in QEMU's memory until a flush or QEMU's end (block/qcow2-cache.c). A QEMU that is killed in
between leaves a disk with neither (seen with 7.2). The safe rebase of `qemu-img` does the same, for the time until it closes the disk.

So the intent names who copies, before the copy begins. A disk that stands alone is believed only after a flush of the same QEMU, or after
an end in order. Otherwise it is put on the repository again. What the guest wrote and flushed is in the disk. What it wrote and did not
flush may be lost, as with every loss of power: then the content of the point is there again.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from service import bounded_io, log
from service.errors import LibvirtCallFailed, RestoreNotWrittenOut
from service.hypervisor.guest import Guest
from service.jobs.restore_intent import RestoreIntent
from service.jobs.restore_source import Archive
from service.model import restored_definition
from service.this_boot import boot_id

FLUSH_PATIENCE_S = 60.0
"""Seconds to wait for flushes of the guest once its disks are whole. After that the guest is left to its own flushes, with a warning."""
FLUSHES = 2
"""Flushes that must end after the copy. The first may have begun before it: QEMU does one after the other (bdrv_co_flush in block/io.c)."""
BY_QEMU_IMG = "qemu-img"
"""In place of a start of the domain: the disk is made whole while the domain is off."""

_logger = log.get(__name__)


def start_of(guest: Guest) -> str:
    """Which start of the domain this is. libvirt counts from 1 again after a start of the host."""
    return f"{boot_id()}:{guest.instance()}"


class Copies:
    """The copies that were begun and are not known to be written out. `note` writes the intent."""

    def __init__(self, intent: RestoreIntent, archive: Archive, note: Callable[[RestoreIntent], RestoreIntent]) -> None:
        self.intent = intent
        self._archive = archive
        self._note = note
        self._paths = {file.what: file.path for file in intent.files}
        #: By target: the flushes of the guest when its copy was first seen to have ended.
        self._flushes: dict[str, int] = {}
        self._ended_at: float | None = None
        #: The disks of which no flush was seen within FLUSH_PATIENCE_S.
        self.unproven: list[str] = []

    def begin(self, target: str, copied_by: str) -> None:
        """Call this before the copy begins. `copied_by`: `start_of` the domain, or BY_QEMU_IMG."""
        self._flushes.pop(target, None)
        self._ended_at = None
        if self.intent.copied_by.get(target) != copied_by:
            self._write(replace(self.intent, copied_by={**self.intent.copied_by, target: copied_by}))

    def are_written_out(self, targets: Iterable[str]) -> None:
        """Nothing that was copied into these disks can be lost any more."""
        left = {target: copied_by for target, copied_by in self.intent.copied_by.items() if target not in set(targets)}
        if left != self.intent.copied_by:
            self._write(replace(self.intent, copied_by=left))

    def lost(self, guest: Guest, whole: Iterable[str]) -> list[str]:
        """The disks among `whole` whose copier ended before anything said that the copy was written out."""
        begun = {target: self.intent.copied_by[target] for target in whole if target in self.intent.copied_by}
        if begun and guest.is_shut_off():
            if guest.was_shut_off_cleanly():
                # A QEMU that ends in order writes out everything.
                self.are_written_out(target for target, copied_by in begun.items() if copied_by != BY_QEMU_IMG)
            return sorted(target for target in begun if target in self.intent.copied_by)
        now = start_of(guest) if begun else ""
        return sorted(target for target, copied_by in begun.items() if copied_by != now)

    def can_end(self, guest: Guest) -> bool:
        """Every disk is whole, and none is `lost`: whether that will stay so. If not, ask again soon."""
        if not self.intent.copied_by:
            return True
        self._ended_at = self._ended_at or time.monotonic()
        try:
            self.are_written_out([target for target in self.intent.copied_by if self._is_flushed(guest, target)])
        except LibvirtCallFailed:
            # The domain has ended just now.
            return False
        if self.intent.copied_by and time.monotonic() - self._ended_at > FLUSH_PATIENCE_S:
            self.unproven = sorted(self.intent.copied_by)
            _logger.warning("flush_not_seen", domain=self.intent.name, disks=self.unproven)
            return True
        return not self.intent.copied_by

    def put_on_repository(self, guest: Guest, targets: list[str]) -> None:
        """The disks stand on the repository again, and what was lost is read from there again. Can be repeated after any death.

        Raises RestoreNotWrittenOut: the guest wrote to a disk that lacked data. Raises the errors of storage, repository and libvirt.
        """
        _logger.warning("copy_not_written_out", domain=self.intent.name, disks=targets)
        if not guest.is_shut_off():
            if not any(guest.is_whole(target) for target in targets):
                # It was started with the images below in its definition, and reads what is missing from there.
                return
            self._switch_off(guest, targets)
        sources = guest.persistent_sources()
        if self.intent.definition is None or any(sources.get(target) != self._paths[target] for target in targets):
            raise self.error(targets)
        # The definition first. A QEMU that is started now gets the images below from it: libvirt names each of them, and QEMU does not
        # ask the header then. The other way round, a definition of old might still say that there is nothing below.
        guest.redefine(restored_definition.standing_on_again(guest.secure_xml(), self.intent.definition, targets))
        images = dict(zip(self.intent.targets, self.intent.images, strict=True))
        for target in targets:
            folder, file = images[target]
            self._archive.call("stand_on_again", target=self._paths[target], folder=folder, file=file)

    def was_started(self) -> None:
        if self.intent.starts_again:
            self._write(replace(self.intent, starts_again=False))

    def error(self, targets: Iterable[str]) -> RestoreNotWrittenOut:
        return RestoreNotWrittenOut(domain=self.intent.name, disks=", ".join(sorted(targets)), path=self._archive.path)

    def _switch_off(self, guest: Guest, targets: list[str]) -> None:
        """Another client started the domain on disks that lack data. Only a guest that has written nothing there is none the worse."""
        before = self._written_at(targets)
        if any(guest.bytes_written(target) for target in targets):
            raise self.error(targets)
        self._write(replace(self.intent, starts_again=True))
        guest.destroy()
        if self._written_at(targets) != before:
            raise self.error(targets)

    def _written_at(self, targets: list[str]) -> list[int]:
        """QEMU writes nothing to a qcow2 that it only opens and closes."""
        paths = [self._paths[target] for target in targets]
        return [bounded_io.translated_call("looking at", path, Path(path).stat).st_mtime_ns for path in paths]

    def _is_flushed(self, guest: Guest, target: str) -> bool:
        flushes = guest.block_latency(target).flushes or 0
        return flushes >= self._flushes.setdefault(target, flushes) + FLUSHES

    def _write(self, intent: RestoreIntent) -> None:
        self.intent = self._note(intent)
