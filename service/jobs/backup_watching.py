"""The watch over the guest of one backup: it begins in the preflight, and ends with the job."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service.disks.overlays import folder_of
from service.errors import GuestPausedByError, GuestSuffers, OverlaySpaceLow, StillpointError
from service.hypervisor.guest import Guest
from service.jobs.guest_watch import GuestWatch, resume_after_error
from service.model.impact import ImpactStage
from service.model.intent import Overlay
from service.model.inventory import Disk

GUEST_IN_NEED = (OverlaySpaceLow, GuestPausedByError, GuestSuffers)
"""What the watch raises: the overlays must be merged back, whatever else is away."""
RESERVE_PART = 2
"""The copy is ended when this part of what was required at the start is left: a guest that writes takes some at once."""


class Watching:
    """A guest that is shut off is not watched: then every call does nothing."""

    def __init__(self, overlay_dir: Path | None, overlay_reserve_bytes: int) -> None:
        self._overlay_dir = overlay_dir
        self._reserve_bytes = overlay_reserve_bytes // RESERVE_PART
        self._watch: GuestWatch | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def begin(self, guest: Guest, disks: Sequence[Disk], impact_limit_ms: int | None) -> None:
        """`disks`: on the files that they have before the point is taken."""
        paths = [folder_of(disk, self._overlay_dir) / disk.target for disk in disks]
        self._begin(guest, [disk.target for disk in disks], paths, impact_limit_ms, None)

    def continue_with(
        self, guest: Guest, overlays: Sequence[Overlay], impact_limit_ms: int | None, earlier: Mapping[str, Any] | None
    ) -> None:
        """After an earlier attempt was lost in the copy."""
        paths = [Path(overlay.path) for overlay in overlays]
        self._begin(guest, [overlay.target for overlay in overlays], paths, impact_limit_ms, earlier)
        self.merges(overlays)
        self.mark(ImpactStage.copy)

    def _begin(
        self, guest: Guest, targets: Sequence[str], paths: Sequence[Path], limit_ms: int | None, earlier: Mapping[str, Any] | None
    ) -> None:
        watch = GuestWatch(guest, targets, paths, self._reserve_bytes, limit_ms, earlier=earlier)
        self._watch = self._stack.enter_context(watch)

    def mark(self, stage: ImpactStage) -> None:
        if self._watch is not None:
            self._watch.mark(stage)

    def merges(self, overlays: Sequence[Overlay]) -> None:
        """Call this when the overlays are made, and before the stage `copy` is marked."""
        if self._watch is not None:
            self._watch.merges(overlays)

    def look(self) -> None:
        """At once, for what must be in the record when the job ends now."""
        if self._watch is not None:
            self._watch.look_if_possible()

    def check(self) -> None:
        if self._watch is not None:
            self._watch.check()

    def check_before_leaving(self) -> None:
        if self._watch is not None:
            self._watch.check_before_leaving()

    def pace(self) -> int | None:
        return self._watch.pace() if self._watch is not None else None

    def as_document(self) -> dict[str, Any] | None:
        return self._watch.as_document() if self._watch is not None else None


def after_the_pause(guest: Guest, error: StillpointError) -> StillpointError:
    """Continue a guest that an I/O error has paused, now that its space is free again. The error says whether that worked."""
    if not isinstance(error, GuestPausedByError):
        return error
    try:
        is_resumed = resume_after_error(guest)
    except StillpointError:
        is_resumed = False
    return GuestPausedByError(**{**error.facts, "resumed": is_resumed})
