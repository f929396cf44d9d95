"""The job kind `prune`: removes points from their repository, those that stand on others first.

Each point goes in two steps. First it is given up on record, so that nothing begins to use it; then the hand renames its folder and
removes its files. A worker that dies between the two leaves a point that is `leaving`, and every later prune there finishes it.

Where retention has asked, hours may have passed: a policy was changed, a newer point was found damaged. So the rules are asked again
in the transaction that gives the point up, and a point that stays is not an error.
"""

from collections.abc import Callable
from dataclasses import dataclass

from service.errors import StillpointError
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.point_removal import STAYS_BY_RULE, PointRemoval, stop_point
from service.jobs.run import JobRun
from service.model.lifecycle import PhaseName
from service.model.requests import PruneRequest
from service.records import repositories
from service.repository.hand import SILENCE_S
from service.repository.store import Repository


@dataclass(frozen=True)
class Prune:
    """The handler of the kind. What is removed is not needed any more, so a lost job is tried again from its beginning."""

    silence_s: float = SILENCE_S
    open_repository: Callable[..., Repository] = Repository

    def run(self, run: JobRun, host: Host) -> Ending:  # noqa: ARG002 - as every handler has it
        request = run.request(PruneRequest)
        row = run.in_transaction(lambda session: repositories.get(session, request.repository))
        removal = PointRemoval(run, row.id, request.retention)
        # A removal that was begun is not cancelled: half of a point is of use to nobody.
        opened = self.open_repository(row.path, row.id, silence_s=self.silence_s, safe_point=lambda: stop_point(run, PhaseName.remove))
        with opened as repository:
            stays = removal.remove(repository, request.recovery_points, with_needing=request.with_needing)
        is_no_error = request.retention is not None and isinstance(stays, STAYS_BY_RULE)
        return Ending(None if is_no_error else stays, result=removal.result())

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return Resolution(is_tried_again=True)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)
