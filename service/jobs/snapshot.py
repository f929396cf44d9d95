"""The job kind `snapshot`: takes an external snapshot of a domain's disks inside a freeze, and judges the point."""

from dataclasses import dataclass, field
from pathlib import Path

from service.errors import StillpointError
from service.freeze.frozen_pass import PassSettings
from service.jobs import interrupted_disks, snapshot_outcome
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.point_taking import PointSettings, PointTaking
from service.jobs.run import JobRun
from service.model.verdict import no_point


@dataclass(frozen=True)
class Snapshot:
    """The handler of the kind. An error before the window leaves no overlay. `overlay_dir` None: each overlay is in its disk's folder.

    `max_chain_depth`: see PointSettings.
    """

    passes: PassSettings = field(default_factory=PassSettings)
    overlay_dir: Path | None = None
    overlay_reserve_bytes: int = 0
    max_chain_depth: int | None = None

    def run(self, run: JobRun, host: Host) -> Ending:
        """Every phase of the job, in order."""
        guest = host.guest(run.claim.guest_id)
        settings = PointSettings(self.passes, self.overlay_dir, self.overlay_reserve_bytes, self.max_chain_depth)
        passed, taken = PointTaking(settings, run, host, guest).take()
        return snapshot_outcome.conclude(run, guest, passed, taken, self.passes.writer_rules)

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return interrupted_disks.settle(lost, lost.guest) if lost.guest is not None else Resolution(judgement=no_point())

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error, no_point())
