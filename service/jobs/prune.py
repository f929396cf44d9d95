"""The job kind `prune`: removes points from their repository, those that stand on others first.

Each point goes in two steps. First it is given up on record, so that nothing begins to use it; then the hand renames its folder and
removes its files. A worker that dies between the two leaves a point that is `leaving`, and every later prune there finishes it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Job
from service.errors import PointNeeded, RecoveryPointNotFound, StillpointError
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun, MustRecover
from service.model.lifecycle import PhaseName, PointState
from service.model.requests import PruneRequest
from service.records import points, queue, removal, repositories
from service.records.removal import Neighbours
from service.repository.hand import SILENCE_S
from service.repository.store import Repository


@dataclass(frozen=True)
class Prune:
    """The handler of the kind. What is removed is not needed any more, so a lost job is tried again from its beginning."""

    silence_s: float = SILENCE_S
    open_repository: Callable[..., Repository] = Repository

    def run(self, run: JobRun, host: Host) -> Ending:  # noqa: ARG002 - as every handler has it
        return _PruneRun(self, run).run()

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return Resolution(is_tried_again=True)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)


@dataclass
class _Tally:
    """`stayed`: why each point that was asked for is still there."""

    removed: list[dict[str, Any]] = field(default_factory=list)
    stayed: list[dict[str, Any]] = field(default_factory=list)

    def as_document(self) -> dict[str, Any]:
        freed = sum(point["freed_bytes"] for point in self.removed)
        return {"prune": {"removed": self.removed, "stayed": self.stayed, "freed_bytes": freed}}


class _PruneRun:
    """One attempt of one job."""

    def __init__(self, kind: Prune, run: JobRun) -> None:
        self._kind = kind
        self._run = run
        self._request = run.request(PruneRequest)
        row = run.in_transaction(lambda session: repositories.get(session, self._request.repository))
        self._repository_id, self._path = row.id, row.path
        # What an earlier attempt of this job has removed is told as well.
        earlier = run.in_transaction(lambda session: session.scalar(select(Job.result).where(Job.id == run.claim.job_id))) or {}
        self._tally = _Tally(list(earlier.get("prune", {}).get("removed", ())))

    def run(self) -> Ending:
        error: StillpointError | None = None
        with self._opened() as repository, self._run.phase(PhaseName.remove) as phase:
            # Nothing is given up in a repository that cannot be written now.
            if (why_not := repository.look().why_not) is not None:
                raise why_not
            for point_id in self._wanted():
                self._safe_point()
                stays = self._one(repository, point_id)
                error = error or stays
            if error is not None:
                phase.warn(error.detail)
        return Ending(error, result=self._tally.as_document())

    def _opened(self) -> Repository:
        # A removal that was begun is not cancelled: half of a point is of use to nobody.
        return self._kind.open_repository(self._path, self._repository_id, silence_s=self._kind.silence_s, safe_point=self._stop_point)

    def _wanted(self) -> list[str]:
        asked, with_needing = self._request.recovery_points, self._request.with_needing
        return self._run.in_transaction(lambda session: removal.to_remove(session, self._repository_id, asked, with_needing=with_needing))

    def _one(self, repository: Repository, point_id: str) -> StillpointError | None:
        """Returns why it stays."""
        folder, error = self._run.in_transaction(lambda session: self._given_up(session, point_id))
        if error is None and folder is not None:
            try:
                freed = repository.remove_point(folder)
            except PointNeeded as needed:
                # Another service has points there that this database does not know. No file was touched.
                error = needed
                self._kept_after_all(point_id)
            else:
                self._removed(point_id, folder, freed)
        if error is not None:
            self._tally.stayed.append({"id": point_id, "reason": error.as_document()})
        return error

    def _given_up(self, session: Session, point_id: str) -> tuple[str | None, StillpointError | None]:
        """Its folder. None: it is gone already, or the error says why it stays."""
        now = removal.turn_of(session, self._repository_id)
        try:
            point = points.get(session, point_id)
        except RecoveryPointNotFound as error:
            is_done = any(point_id == removed["id"] for removed in self._tally.removed)
            return None, None if is_done else error
        if point.state != PointState.leaving:
            neighbours = Neighbours.of(session, self._repository_id, {point.domain_id})
            if (stays := removal.why_it_stays(point, neighbours)) is not None:
                return None, stays
            removal.give_up(session, point_id, now=now, facts={"job_id": self._run.claim.job_id})
        return point.folder, None

    def _kept_after_all(self, point_id: str) -> None:
        def note(session: Session) -> None:
            removal.keep_after_all(session, point_id, now=database_now(session), facts={"job_id": self._run.claim.job_id})

        self._run.in_transaction(note)

    def _removed(self, point_id: str, folder: str, freed_bytes: int) -> None:
        facts = {"job_id": self._run.claim.job_id, "freed_bytes": freed_bytes}
        self._tally.removed.append({"id": point_id, "folder": folder, "freed_bytes": freed_bytes})

        def note(session: Session) -> None:
            removal.take_off_the_list(session, point_id, now=database_now(session), facts=facts)
            queue.write(session, self._run.claim.job_id, self._run.claim.lease_token, {"result": self._tally.as_document()})

        self._run.in_transaction(note)

    def _safe_point(self) -> None:
        """Between two points. Raises JobCancelled, LeaseLost, MustRecover."""
        self._run.safe_point(PhaseName.remove)
        self._stop_point()

    def _stop_point(self) -> None:
        """Raises LeaseLost, MustRecover."""
        if self._run.lease_lost.is_set():
            self._run.safe_point(PhaseName.remove)
        if self._run.ends_at is not None:
            raise MustRecover(what="The service was told to stop")
