"""Makes the disks of an instant restore whole while the domain runs: the data that is still in the repository is copied into the overlays.

The work survives everything that may happen to the domain meanwhile. A QEMU that was killed is started again, and the copy continues
where it was. A domain that was shut down is made whole while it is off.
"""

import time
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
    RestoreNotWrittenOut,
    RestoreUnfinished,
    StillpointError,
)
from service.hypervisor.guest import Guest
from service.hypervisor.power import PauseReason
from service.jobs import restore_host
from service.jobs.kind import Host
from service.jobs.restore_intent import RestoreIntent
from service.jobs.restore_source import Archive, refuse_to_stay
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

FLUSH_PATIENCE_S = 60.0
"""Seconds to wait for a flush of the guest once its disks are whole. After that the guest is left to its own flushes."""

_logger = log.get(__name__)


class Flattening:
    """`remaining`: the disks that still need the repository."""

    def __init__(self, run: JobRun, host: Host, archive: Archive, intent: RestoreIntent, bytes_s: int | None) -> None:
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
        #: By target: the start of the domain (`Guest.instance`) in which its copy was seen to run.
        self._copied_in: dict[str, int] = {}

    def run(self) -> Guest:
        """The domain, when all of its disks stand alone. Raises RestoreUnfinished, DomainGone, JobCancelled, LeaseLost."""
        self._last_progress = time.monotonic()
        while True:
            try:
                guest = self._host.guest(self._intent.uuid)
                self.remaining = {target for target in self._intent.targets if not self._is_whole(guest, target)}
                if not self.remaining:
                    self._wait_until_written_out(guest)
                    break
                self._step(guest, min(self.remaining))
            except (DomainBusy, LibvirtCallFailed, LibvirtCallTimedOut, LibvirtUnavailable) as error:
                self._be_patient(error)
                self._wait(RETRY_PAUSE_S)
        self._close_repository()
        return guest

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
            self._copied_in[target] = guest.instance()
            guest.block_pull(target, self._bytes_s)
        elif progress is not None:
            self._copied_in[target] = guest.instance()
            self._tell(target, progress.done_bytes, progress.total_bytes)
        self._wait(POLL_S, guest)

    def _wait_until_written_out(self, guest: Guest) -> None:
        """QEMU drops the repository from a header before it writes its cached tables. A flush of the guest writes them.

        Raises RestoreNotWrittenOut if that QEMU ended before.
        """
        if guest.is_shut_off() and not guest.has_crashed():
            # A QEMU that ends in order writes out everything.
            return
        first = {target: guest.block_latency(target).flushes for target in self._copied_in if not guest.is_shut_off()}
        deadline = time.monotonic() + FLUSH_PATIENCE_S
        waiting = set(self._copied_in)
        while waiting:
            if killed := sorted(target for target in waiting if guest.instance() != self._copied_in[target]):
                raise RestoreNotWrittenOut(domain=self._intent.name, disks=", ".join(killed), path=self._archive.path)
            if time.monotonic() > deadline:
                _logger.warning("flush_not_seen", domain=self._intent.name, disks=sorted(waiting))
                return
            waiting = {target for target in waiting if (guest.block_latency(target).flushes or 0) <= (first[target] or 0)}
            if waiting:
                self._wait(POLL_S, guest)

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
        if guest.has_crashed():
            _logger.warning("restored_domain_crashed", domain=guest.name)
            guest.start()
            return
        for target in sorted(self.remaining):
            self._archive.phase = PhaseName.flatten
            self._archive.call("make_whole", target=self._paths[target])
            self._last_progress = time.monotonic()
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
        try:
            if not any(self._reads_repository(guest) for guest in self._host.guests()):
                user = restore_host.qemu_user(self._host, self._intent.definition or "<domain/>")
                self._archive.call("close_to_qemu", images=[list(image) for image in self._intent.images], uid=user.uid)
        except (JobCancelled, StillpointError) as error:
            # The restore itself is complete. QEMU's user keeps a right to read that nothing uses.
            _logger.warning("repository_left_open_to_qemu", path=self._archive.path, reason=str(error))

    def _reads_repository(self, guest: Guest) -> bool:
        below = [path for paths in restored_definition.files_below(guest.xml()).values() for path in paths]
        return any(Path(path).is_relative_to(self._archive.path) for path in below)


def _head_of(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(image_header.READ_BYTES)
