"""What a job shows of the merge of its overlays: bytes done, of how many, and how fast."""

import time

from service import log
from service.errors import LeaseLost
from service.jobs.run import JobRun
from service.model.lifecycle import PhaseName

_logger = log.get(__name__)


class MergeProgress:
    """For one phase. The numbers are QEMU's own; both grow while the guest writes. A call raises nothing, as a merge goes to its end."""

    def __init__(self, run: JobRun, phase: PhaseName) -> None:
        self._run = run
        self._phase = phase
        self._target: str | None = None
        self._since: tuple[float, int] = (0.0, 0)

    def __call__(self, target: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if target != self._target:
            self._target, self._since = target, (now, done_bytes)
        began_at, began_with = self._since
        rate = (done_bytes - began_with) / (now - began_at) if now > began_at else None
        try:
            self._run.progress(self._phase, done_bytes, total_bytes, rate, disk=target)
        except LeaseLost as error:
            # The last write of the job says it, too.
            _logger.info("merge_progress_not_shown", reason=error.detail)
