"""Whether the files of a point are still: the guest writes to the overlays above them until the copy has ended.

Another client can merge an overlay of ours back. Then the file below is the guest's live disk again, and no point in time any more.
"""

import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from service import bounded_io, log
from service.disks.whereabouts import Whereabouts
from service.errors import DomainGone, PointLost, StillpointError
from service.hypervisor.guest import Guest
from service.jobs.run import MustRecover
from service.model.intent import Overlay

INTERVAL_S = 1.0
"""Seconds between two looks during the copy."""
PATIENCE_S = 120.0
"""Seconds that a look which the copy needs waits for libvirt. After that the job is left to recovery."""
PAUSE_S = 0.2
"""Seconds between two tries of such a look."""

_logger = log.get(__name__)


def last_write(path: str) -> Mapping[str, int] | None:
    """What changes when a program writes to a file. None: a device, or a storage that does not answer."""
    try:
        status = bounded_io.call("looking at", path, Path(path).stat)
    except (OSError, StillpointError):
        return None
    return {"mtime_ns": status.st_mtime_ns, "size": status.st_size} if stat.S_ISREG(status.st_mode) else None


class StillDisks:
    """The disks of a domain whose point is copied."""

    def __init__(
        self, guest: Guest, overlays: Sequence[Overlay], *, interval_s: float = INTERVAL_S, patience_s: float = PATIENCE_S
    ) -> None:
        self._guest = guest
        self._overlays = overlays
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._looked_at: float | None = None

    def check(self) -> None:
        """At any safe point of the copy. Looks once in a while, and not while libvirt does not answer. Raises PointLost."""
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < self._interval_s:
            return
        self._looked_at = now
        try:
            self._look()
        except PointLost:
            raise
        except StillpointError as error:
            _logger.info("still_disks_not_seen", domain=self._guest.name, reason=error.detail)

    def must_be_still(self, safe_point: Callable[[], None]) -> None:
        """Waits for libvirt's answer. Raises PointLost, MustRecover, and what `safe_point` raises."""
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return self._look()
            except PointLost:
                raise
            except StillpointError as error:
                if time.monotonic() > until:
                    raise MustRecover(what=error.detail) from error
            safe_point()
            time.sleep(PAUSE_S)

    def _look(self) -> None:
        try:
            where, sources = Whereabouts.of(self._guest, self._overlays), self._guest.sources()
            merging = [] if self._guest.is_shut_off() else [target for target in where.planned if self._guest.mirror(target)]
        except DomainGone:
            # No QEMU of this host writes to the files. Who else does is seen in the times of the files.
            return
        # A disk that was taken away has no source.
        left = [target for target in where.planned if target in sources and target not in where.live]
        if left:
            raise PointLost(domain=self._guest.name, reason=f"another client moved {_named(left, sources)} away from our overlays")
        if merging:
            raise PointLost(domain=self._guest.name, reason=f"another client merges or copies {', '.join(merging)}")


def _named(targets: Sequence[str], sources: Mapping[str, str | None]) -> str:
    return ", ".join(f"{target} (now on {sources[target]})" for target in targets)
