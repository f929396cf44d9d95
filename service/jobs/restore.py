"""The job kind `restore`: brings a sealed point back."""

from dataclasses import dataclass

from service.errors import KindUnknown, StillpointError
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun


@dataclass(frozen=True)
class Restore:
    """The handler of the kind."""

    def run(self, run: JobRun, host: Host) -> Ending:  # noqa: ARG002 - as every handler has it
        raise KindUnknown(kind=run.claim.kind)

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return Resolution()

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)
