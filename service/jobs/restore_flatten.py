"""Makes the disks of an instant restore whole while the domain runs: the data that is still in the repository is copied into the overlays.

The work survives everything that may happen to the domain meanwhile. A QEMU that was killed is started again, and the copy continues
where it was. A domain that was shut down is made whole while it is off.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service import bounded_io, log
from service.errors import (
    DomainBusy,
    GuestPausedByError,
    JobCancelled,
    LibvirtCallFailed,
    LibvirtCallTimedOut,
    LibvirtUnavailable,
    RepositoryGone,
    RepositoryNotAnswering,
    RepositoryRefused,
    RepositoryUnusable,
    RestoreUnfinished,
    StillpointError,
    StorageNotAnswering,
    StorageRefused,
)
from service.hypervisor.guest import Guest
from service.hypervisor.power import PauseReason
from service.jobs import restore_host
from service.jobs.kind import Host
from service.jobs.restore_intent import RestoreIntent
from service.jobs.restore_source import Archive, refuse_to_stay
from service.jobs.restore_written_out import BY_QEMU_IMG, Copies, start_of
from service.jobs.run import JobRun
from service.model import image_header, restored_definition
from service.model.inventory import DomainState
from service.model.lifecycle import PhaseName
from service.repository.hand import RATE_OVER_S

POLL_S = 0.2
"""Seconds between two looks at the domain."""
PATIENCE_S = 900.0
"""Seconds without a byte that was copied, with libvirt or the repository failing. After that the job ends, and the domain runs on."""
RETRY_PAUSE_S = 2.0
"""Seconds before something that failed is tried again."""

_logger = log.get(__name__)


class Flattening:
    """`remaining`: the disks that still need the repository."""

    def __init__(
        self,
        run: JobRun,
        host: Host,
        archive: Archive,
        intent: RestoreIntent,
        *,
        note: Callable[[RestoreIntent], RestoreIntent],
        bytes_s: int | None,
    ) -> None:
        self._run = run
        self._host = host
        self._archive = archive
        self._intent = intent
        self._bytes_s = bytes_s
        self.remaining = set(intent.targets)
        self._paths = {file.what: file.path for file in intent.files}
        self._last_progress = time.monotonic()
        #: The disks of which a copy was begun here. It may have ended well between two looks.
        self._begun: set[str] = set()
        self._seen: tuple[str, int, float] | None = None
        self._copies = Copies(intent, archive, note)

    def run(self) -> Guest:
        """The domain, when all of its disks stand alone.

        Raises RestoreUnfinished, RestoreNotWrittenOut, DomainGone, JobCancelled, LeaseLost.
        """
        self._last_progress = time.monotonic()
        while True:
            try:
                guest = self._host.guest(self._intent.uuid)
                self.remaining = {target for target in self._intent.targets if not self._is_whole(guest, target)}
                if lost := self._copies.lost(guest, set(self._intent.targets) - self.remaining):
                    self.remaining |= set(lost)
                    self._mend(guest, lost)
                elif self.remaining:
                    self._step(guest, min(self.remaining))
                elif self._copies.can_end(guest):
                    self._stand_alone(guest)
                    break
                else:
                    self._wait(POLL_S)
            except (DomainBusy, LibvirtCallFailed, LibvirtCallTimedOut, LibvirtUnavailable) as error:
                self._be_patient(error)
                self._wait(RETRY_PAUSE_S)
        self._close_repository()
        return guest

    @property
    def unproven(self) -> list[str]:
        """The disks of which no flush was seen after their copy."""
        return self._copies.unproven

    def _step(self, guest: Guest, target: str) -> None:
        if guest.is_shut_off():
            self._when_off(guest)
            return
        if guest.pause_reason() is PauseReason.io_error:
            # The repository gave an error instead of data. The guest lost nothing, and asks again when it is resumed.
            self._be_patient(GuestPausedByError(domain=guest.name, reason="an I/O error", resumed=True))
            self._wait(RETRY_PAUSE_S, guest)
            guest.resume()
            return
        progress = guest.pull_progress(target)
        if progress is None and guest.state() is DomainState.running:
            if target in self._begun:
                self._be_patient(RestoreUnfinished(domain=guest.name, disks=target, path=self._archive.path, reason="the copy ended early"))
                self._wait(RETRY_PAUSE_S, guest)
                self._begun.discard(target)
                return
            self._begun.add(target)
            self._copies.begin(target, start_of(guest))
            guest.block_pull(target, self._bytes_s)
        elif progress is not None:
            # It may have been begun by a person.
            self._copies.begin(target, start_of(guest))
            self._tell(target, progress.done_bytes, progress.total_bytes)
        self._wait(POLL_S, guest)

    def _mend(self, guest: Guest, lost: list[str]) -> None:
        """Raises RestoreNotWrittenOut, also when the repository or the storage failed for too long."""
        try:
            self._copies.put_on_repository(guest, lost)
        except (
            RepositoryGone,
            RepositoryNotAnswering,
            RepositoryRefused,
            RepositoryUnusable,
            StorageNotAnswering,
            StorageRefused,
        ) as error:
            # StorageRefused: also while another program has the disk open.
            try:
                self._be_patient(error)
            except RestoreUnfinished as unfinished:
                raise self._copies.error(lost) from unfinished
            self._wait(RETRY_PAUSE_S)

    def _is_whole(self, guest: Guest, target: str) -> bool:
        """libvirt knows it of a running domain. Of a domain that is off, the header of its disk tells it."""
        if not guest.is_shut_off():
            return guest.is_whole(target)
        path = self._paths[target]
        head = bounded_io.translated_call("reading", path, lambda: _head_of(path))
        header = image_header.parse(head)
        return header is not None and header.below is None

    def _when_off(self, guest: Guest) -> None:
        """Start a domain again whose QEMU was killed. Copy the rest here if it was shut down."""
        if guest.has_crashed() or self._copies.intent.starts_again:
            _logger.warning("restored_domain_crashed", domain=guest.name)
            guest.start()
            self._begun.clear()
            self._copies.was_started()
            return
        for target in sorted(self.remaining):
            self._archive.phase = PhaseName.flatten
            self._copies.begin(target, BY_QEMU_IMG)
            self._archive.call("make_whole", target=self._paths[target])
            self._copies.are_written_out([target])
            self._last_progress = time.monotonic()

    def _stand_alone(self, guest: Guest) -> None:
        """The next start needs no image below, either. libvirt sees to that itself only where it did the copy."""
        if any(paths for target, paths in restored_definition.files_below(guest.inactive_xml()).items() if target in self._intent.targets):
            guest.redefine(restored_definition.standing_alone(guest.secure_xml(), self._intent.targets))

    def _tell(self, target: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._seen is None or self._seen[0] != target or done < self._seen[1]:
            self._seen = (target, done, now)
        _, before, since = self._seen
        rate = (done - before) / (now - since) if now > since and done > before else None
        if done > before:
            self._last_progress = now
        if now - since > RATE_OVER_S:
            self._seen = (target, done, now)
        self._run.progress(PhaseName.flatten, done, total, rate, disk=target)

    def _be_patient(self, error: StillpointError) -> None:
        """Raises RestoreUnfinished."""
        _logger.warning("flatten_tries_again", domain=self._intent.name, reason=error.detail)
        if time.monotonic() - self._last_progress > PATIENCE_S:
            raise RestoreUnfinished(
                domain=self._intent.name, disks=", ".join(sorted(self.remaining)), path=self._archive.path, reason=error.detail.rstrip(".")
            ) from error

    def _wait(self, seconds: float, guest: Guest | None = None) -> None:
        """A safe point. A cancel stops the copy, and the domain continues to read from the repository."""
        self._run.cancel_requested.wait(seconds)
        refuse_to_stay(self._run)
        try:
            self._run.safe_point(PhaseName.flatten)
        except JobCancelled:
            if guest is not None:
                for target in self.remaining:
                    with suppress(StillpointError):
                        if guest.pull_progress(target) is not None:
                            guest.stop_merge(target)
            raise

    def _close_repository(self) -> None:
        """Take QEMU's right to read the point back, unless another domain still stands on an image of this repository."""
        stored = self._archive.stored
        # A cancelled job takes the right back, too.
        safe_point, stored.safe_point = stored.safe_point, None
        try:
            if not any(self._reads_repository(guest) for guest in self._host.guests()):
                user = restore_host.qemu_user(self._host, self._intent.definition or "<domain/>")
                self._archive.call("close_to_qemu", images=[list(image) for image in self._intent.images], uid=user.uid)
        except StillpointError as error:
            # The restore itself is complete. QEMU's user keeps a right to read that nothing uses.
            _logger.warning("repository_left_open_to_qemu", path=self._archive.path, reason=str(error))
        finally:
            stored.safe_point = safe_point

    def _reads_repository(self, guest: Guest) -> bool:
        below = [path for paths in restored_definition.files_below(guest.xml()).values() for path in paths]
        return any(Path(path).is_relative_to(self._archive.path) for path in below)


def _head_of(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(image_header.READ_BYTES)
