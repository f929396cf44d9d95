"""Watches a guest while a backup of it runs: the latency of its disks, the space of its overlays, and whether it was paused.

The thread only looks. The thread of the job acts: it calls `check` at its safe points, and gives `pace` to the copy.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from service import log
from service.disks.merge_space import allocated_bytes, free_bytes, growth_by_folder
from service.errors import GuestPausedByError, GuestSuffers, OverlaySpaceLow, StillpointError
from service.hypervisor.guest import Guest
from service.hypervisor.power import PauseReason
from service.model.impact import BlockTimes, Felt, ImpactRecord, ImpactStage, felt_between
from service.model.intent import Overlay
from service.model.pace import PATIENCE_S, PaceRule

INTERVAL_S = 0.5
"""Seconds between two looks."""
MERGE_LEAD_S = 2.0
"""Seconds for which a guest that writes as fast as it did must find space after the copy is ended: until its merge has caught up."""
LATENCY_LOOKS = 4
"""The latency that the pace follows is the mean of so many looks: one slow flush alone shall not slow the copy down."""
MARK_WAIT_S = 2.0
"""Seconds that a change of the stage waits for a look that is under way. Then the stage changes without a look, and lacks figures."""

LEAVING_PARTS = 4
"""A worker that stops leaves the copy to the next one only if so many times the reserve is free. Otherwise the overlays are merged back."""
SETTLE_S = 1.0
"""Seconds after which a domain that was continued counts as running. QEMU repeats the failed request at once."""
SETTLE_POLL_S = 0.1
"""Seconds between two looks whether the domain was paused again."""

_logger = log.get(__name__)


class GuestWatch:
    """A context manager: the thread runs inside of it. `overlay_paths`: files that are made or will be made in the window.

    `earlier`: the `as_document` of an earlier attempt of the same job, which was lost in the copy. The watch begins in the stage `copy`
    then, and adds to the figures.
    """

    def __init__(
        self,
        guest: Guest,
        targets: Sequence[str],
        overlay_paths: Sequence[str | Path],
        reserve_bytes: int,
        impact_limit_ms: float | None,
        *,
        earlier: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        free_bytes: Callable[[Path], int | None] = free_bytes,
        interval_s: float = INTERVAL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._guest = guest
        self._targets = tuple(targets)
        self._folders = sorted({Path(path).parent for path in overlay_paths})
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._free_bytes = free_bytes
        self._interval_s = interval_s
        #: Known from the window on.
        self._overlays: Sequence[Overlay] = ()
        #: When the overlays were looked at, and what they took then in bytes.
        self._taken: tuple[float, int] | None = None
        self._rule = PaceRule(impact_limit_ms, patience_s)
        self._record = ImpactRecord(impact_limit_ms, earlier)
        self._stage = ImpactStage.before if earlier is None else ImpactStage.copy
        self._last: dict[str, BlockTimes] = {}
        self._recent = self._no_looks()
        self._looked_at = clock()
        self._fault: StillpointError | None = None
        #: Held during a look, which asks libvirt.
        self._looking = threading.Lock()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "GuestWatch":
        self.look_if_possible()
        self._thread = threading.Thread(target=self._run, name=f"watch {self._guest.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ends.set()
        if self._thread is not None:
            # A look that hangs is left behind. Its thread ends after it.
            self._thread.join(MARK_WAIT_S)

    # --- the thread of the job --------------------------------------------------------------------

    def mark(self, stage: ImpactStage | str) -> None:
        """The job enters this stage. What happened until now belongs to the stage before.

        In the window the thread does not look: a question to libvirt would delay the snapshot, which waits for the lock of the domain.
        """
        has_waited = self._looking.acquire(timeout=MARK_WAIT_S)
        try:
            if has_waited:
                self._look_at_disks()
            # The pace shall not follow what a freeze held.
            self._recent = self._no_looks()
            self._stage = ImpactStage(stage)
        finally:
            if has_waited:
                self._looking.release()

    def merges(self, overlays: Sequence[Overlay]) -> None:
        """These overlays will be merged back, which takes space where the files below are."""
        folders = {Path(path).parent for overlay in overlays for path in (overlay.path, overlay.base)}
        self._folders, self._overlays = sorted(folders), tuple(overlays)

    def check(self) -> None:
        """Raises OverlaySpaceLow, GuestPausedByError, GuestSuffers. Call this at a safe point of the copy: later nothing is raised."""
        if self._stage is not ImpactStage.copy:
            # A merge that is ended frees no space, and helps no guest.
            return
        if self._fault is not None:
            raise self._fault
        if self._rule.is_given_up(self._clock()):
            raise GuestSuffers(
                domain=self._guest.name, latency_ms=round(self._rule.last_latency_ms or 0.0, 3), limit_ms=self._rule.limit_ms
            )

    def check_before_leaving(self) -> None:
        """Raises OverlaySpaceLow if a guest that nobody watches might soon have no space. The next worker may come late."""
        fault = self._space_fault(LEAVING_PARTS * self._reserve_bytes)
        if fault is not None:
            raise fault

    def pace(self) -> int | None:
        """Bytes a second that the copy may read now. None: as fast as possible. 0: nothing."""
        return self._rule.bytes_s

    def as_document(self) -> dict[str, Any]:
        """The `impact` of the job."""
        return self._record.as_document()

    # --- the thread of the watch ------------------------------------------------------------------

    def look(self) -> None:
        """One look. The thread does this every `interval_s`, except in the window."""
        with self._looking:
            if self._stage is ImpactStage.window:
                return
            self._look_at_disks()
            self._look_at_domain()
            self._look_at_space()

    def _run(self) -> None:
        while not self._ends.wait(self._interval_s):
            self.look_if_possible()

    def look_if_possible(self) -> None:
        try:
            self.look()
        except StillpointError as error:
            # libvirt goes away, the domain ends or moves: the job sees that itself. There are no figures until it is back.
            _logger.info("guest_watch_saw_nothing", domain=self._guest.name, error=error.detail)

    def _look_at_disks(self) -> None:
        now = self._clock()
        for target in self._targets:
            times = self._times(target)
            if times is None:
                self._last.pop(target, None)
                continue
            if target in self._last:
                felt = felt_between(self._last[target], times)
                self._record.add(self._stage, target, felt)
                self._recent[target].append(felt)
            self._last[target] = times
        if self._stage is ImpactStage.copy:
            self._note_pace(now - self._looked_at)
            self._rule.look(now, self._latency_ms())
        self._looked_at = now

    def _no_looks(self) -> dict[str, deque[Felt]]:
        return {target: deque(maxlen=LATENCY_LOOKS) for target in self._targets}

    def _times(self, target: str) -> BlockTimes | None:
        try:
            return self._guest.block_latency(target)
        except StillpointError:
            # A domain that is off has no counters, and a disk may have been taken away.
            return None

    def _latency_ms(self) -> float | None:
        """The worst mean of the disks over the last looks."""
        worst = [sum(recent, Felt()).worst_ms for recent in self._recent.values()]
        return max((latency for latency in worst if latency is not None), default=None)

    def _note_pace(self, seconds: float) -> None:
        if self._rule.bytes_s == 0:
            self._record.halted_s += seconds
        elif self._rule.bytes_s is not None:
            self._record.slowed_s += seconds

    def _look_at_domain(self) -> None:
        if self._guest.pause_reason() is not PauseReason.io_error:
            return
        self._record.was_paused_by_error = True
        if self._fault is None:
            errors = self._guest.disk_errors()
            reason = ", ".join(f"{target}: {error}" for target, error in sorted(errors.items())) or "an I/O error of a disk"
            self._fault = GuestPausedByError(domain=self._guest.name, reason=reason, resumed=False)

    def _look_at_space(self) -> None:
        if self._stage is not ImpactStage.copy:
            # Before, nothing is written there. After, only the end of the merge gives space back.
            return
        self._fault = self._fault or self._space_fault(self._reserve_bytes + self._soon_taken_bytes())

    def _soon_taken_bytes(self) -> int:
        """What the guest will write until a merge has caught up, at the rate since the last look."""
        now, taken = self._clock(), sum(allocated_bytes(overlay.path) for overlay in self._overlays)
        before, self._taken = self._taken, (now, taken)
        if before is None or now <= before[0]:
            return 0
        return int(max(0, taken - before[1]) / (now - before[0]) * MERGE_LEAD_S)

    def _space_fault(self, reserve_bytes: int) -> OverlaySpaceLow | None:
        folders = self._folders
        grown = growth_by_folder(self._overlays, folders)
        for folder in folders:
            free = self._free_bytes(folder)
            if free is None:
                continue
            self._record.note_free_bytes(free)
            if free < reserve_bytes + grown[folder]:
                return OverlaySpaceLow(folder=str(folder), free_bytes=free, reserve_bytes=reserve_bytes, merge_bytes=grown[folder])
        return None


def resume_after_error(guest: Guest, *, settle_s: float = SETTLE_S) -> bool:
    """Continue a domain that an I/O error has paused, when the reason is gone. False: it was paused again (F§4.3)."""
    if guest.pause_reason() is not PauseReason.io_error:
        return True
    guest.resume()
    deadline = time.monotonic() + settle_s
    while guest.pause_reason() is not PauseReason.io_error:
        if time.monotonic() > deadline:
            return True
        time.sleep(SETTLE_POLL_S)
    return False
