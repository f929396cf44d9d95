"""The job kind `prune`: removes points from their repository, those that stand on others first.

Each point goes in two steps. First it is given up on record, so that nothing begins to use it; then the hand renames its folder and
removes its files. A worker that dies between the two leaves a point that is `leaving`, and every later prune there finishes it.

Where retention has asked, hours may have passed: a policy was changed, a newer point was found damaged. So the rules are asked again
in the transaction that gives the point up, and a point that stays is not an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Job, RecoveryPoint
from service.errors import PointInUse, PointKept, PointNeeded, PointPinned, RecoveryPointNotFound, StillpointError
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun, MustRecover
from service.model.lifecycle import PhaseName, PointState
from service.model.requests import PruneRequest
from service.model.retention_words import sentence
from service.records import copied_points, points, queue, removal, repositories, retention, retention_looks
from service.records.removal import Neighbours
from service.repository.hand import SILENCE_S
from service.repository.store import Repository

_Why = Mapping[str, Any] | None
"""By which rule of which track a point goes. None: a person asked."""
_STAYS_BY_RULE = (PointInUse, PointKept, PointNeeded, PointPinned, RecoveryPointNotFound)
"""Errors that are none for retention: the point stays, or is gone already, and the next look sees that."""


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
        first: StillpointError | None = None
        with self._opened() as repository, self._run.phase(PhaseName.remove) as phase:
            # Nothing is given up in a repository that cannot be written now.
            if (why_not := repository.look().why_not) is not None:
                raise why_not
            for point_id in self._wanted():
                self._safe_point()
                stays = self._one(repository, point_id)
                first = first or stays
            if first is not None:
                phase.warn(first.detail)
        is_no_error = self._request.retention is not None and isinstance(first, _STAYS_BY_RULE)
        return Ending(None if is_no_error else first, result=self._tally.as_document())

    def _opened(self) -> Repository:
        # A removal that was begun is not cancelled: half of a point is of use to nobody.
        return self._kind.open_repository(self._path, self._repository_id, silence_s=self._kind.silence_s, safe_point=self._stop_point)

    def _wanted(self) -> list[str]:
        asked, with_needing = self._request.recovery_points, self._request.with_needing
        return self._run.in_transaction(lambda session: removal.to_remove(session, self._repository_id, asked, with_needing=with_needing))

    def _one(self, repository: Repository, point_id: str) -> StillpointError | None:
        """Returns why it stays."""
        folder, why, error = self._run.in_transaction(lambda session: self._given_up(session, point_id))
        if error is None and folder is not None:
            try:
                freed = repository.remove_point(folder)
            except PointNeeded as needed:
                # Another service has points there that this database does not know. No file was touched.
                error = needed
                self._kept_after_all(point_id)
            else:
                self._removed(point_id, folder, freed, why)
        if error is not None:
            self._tally.stayed.append({"id": point_id, "reason": error.as_document()})
        return error

    def _given_up(self, session: Session, point_id: str) -> tuple[str | None, _Why, StillpointError | None]:
        """Its folder, and by which rule it goes. No folder: it is gone already, or the error says why it stays."""
        now = removal.turn_of(session, self._repository_id)
        try:
            point = points.get(session, point_id)
        except RecoveryPointNotFound as error:
            is_done = any(point_id == removed["id"] for removed in self._tally.removed)
            return None, None, None if is_done else error
        why = (self._request.retention or {}).get(point_id)
        if point.state != PointState.leaving:
            if why is not None:
                why, kept = self._judged_again(session, point, now)
                if kept is not None:
                    return None, why, kept
            neighbours = Neighbours.of(session, self._repository_id, {point.domain_id})
            if (stays := removal.why_it_stays(point, neighbours)) is not None:
                return None, why, stays
            removal.give_up(session, point_id, now=now, facts=self._facts(why))
        return point.folder, why, None

    def _judged_again(self, session: Session, point: RecoveryPoint, now: datetime) -> tuple[_Why, PointKept | None]:
        """By which rule the point goes now, or why it stays."""
        of_domain = RecoveryPoint.domain_id == point.domain_id
        judged = next(each for each in retention.judge(session, of_domain, now) if each.point.id == point.id)
        if not judged.decision.stays:
            return retention_looks.why_of(judged), None
        return None, PointKept(point=point.id, reasons="; ".join(sentence(ground) for ground in judged.decision.grounds))

    def _facts(self, why: _Why) -> dict[str, Any]:
        """What the events of a point that goes say."""
        return {"job_id": self._run.claim.job_id} | ({"retention": dict(why)} if why is not None else {})

    def _kept_after_all(self, point_id: str) -> None:
        def note(session: Session) -> None:
            removal.keep_after_all(session, point_id, now=database_now(session), facts={"job_id": self._run.claim.job_id})

        self._run.in_transaction(note)

    def _removed(self, point_id: str, folder: str, freed_bytes: int, why: _Why) -> None:
        facts = self._facts(why) | {"freed_bytes": freed_bytes}
        by_rule = dict(why) if why is not None else None
        copies = self._run.in_transaction(lambda session: copied_points.places_of(session, point_id))
        removed = {"id": point_id, "folder": folder, "freed_bytes": freed_bytes, "retention": by_rule, "copies": copies}
        self._tally.removed.append(removed)

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
