"""Removing points from a repository, for the kinds of jobs that do so: given up on record first, then renamed, then removed."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Job, RecoveryPoint
from service.errors import PointInUse, PointKept, PointNeeded, PointPinned, RecoveryPointNotFound, StillpointError
from service.jobs.run import JobRun, MustRecover
from service.model.lifecycle import PhaseName, PointState
from service.model.retention_words import sentence
from service.records import copied_points, points, queue, removal, retention, retention_looks
from service.records.removal import Neighbours
from service.repository.store import Repository

_Why = Mapping[str, Any] | None
"""By which rule of which track a point goes. None: a person asked."""
STAYS_BY_RULE = (PointInUse, PointKept, PointNeeded, PointPinned, RecoveryPointNotFound)
"""Errors that are none for retention: the point stays, or is gone already, and the next look sees that."""


class PointRemoval:
    """One attempt of one job. `stayed`: why each point that was asked for is still there.

    `by_rule`: by which rule each point goes, by its id, where retention has asked. `also`: what else the job's result shows.
    """

    def __init__(
        self, run: JobRun, repository_id: str, by_rule: Mapping[str, _Why] | None = None, also: Callable[[], dict[str, Any]] = dict
    ) -> None:
        self._run, self._repository_id, self._retention, self._also = run, repository_id, by_rule, also
        # What an earlier attempt of this job has removed is told as well.
        earlier = run.in_transaction(lambda session: session.scalar(select(Job.result).where(Job.id == run.claim.job_id))) or {}
        self.removed: list[dict[str, Any]] = list((earlier.get("prune") or {}).get("removed", ()))
        self.stayed: list[dict[str, Any]] = []

    def result(self) -> dict[str, Any]:
        freed = sum(point["freed_bytes"] for point in self.removed)
        return {**self._also(), "prune": {"removed": self.removed, "stayed": self.stayed, "freed_bytes": freed}}

    def remove(self, repository: Repository, asked: Sequence[str], *, with_needing: bool = False) -> StillpointError | None:
        """The points that were asked for, and what earlier jobs have given up. Returns why the first one stays that does."""
        first: StillpointError | None = None
        with self._run.phase(PhaseName.remove) as phase:
            # Nothing is given up in a repository that cannot be written now.
            if (why_not := repository.look().why_not) is not None:
                raise why_not
            for point_id in self._wanted(asked, with_needing=with_needing):
                self._run.safe_point(PhaseName.remove)
                stop_point(self._run, PhaseName.remove)
                stays = self._one(repository, point_id)
                first = first or stays
            if first is not None:
                phase.warn(first.detail)
        return first

    def _wanted(self, asked: Sequence[str], *, with_needing: bool) -> list[str]:
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
            self.stayed.append({"id": point_id, "reason": error.as_document()})
        return error

    def _given_up(self, session: Session, point_id: str) -> tuple[str | None, _Why, StillpointError | None]:
        """Its folder, and by which rule it goes. No folder: it is gone already, or the error says why it stays."""
        now = removal.turn_of(session, self._repository_id)
        try:
            point = points.get(session, point_id)
        except RecoveryPointNotFound as error:
            is_done = any(point_id == removed["id"] for removed in self.removed)
            return None, None, None if is_done else error
        why = (self._retention or {}).get(point_id)
        if point.state != PointState.leaving:
            if why is not None:
                why, kept = judged_again(session, point, now)
                if kept is not None:
                    return None, why, kept
            neighbours = Neighbours.of(session, self._repository_id, {point.domain_id})
            if (stays := removal.why_it_stays(point, neighbours)) is not None:
                return None, why, stays
            removal.give_up(session, point_id, now=now, facts=self._facts(why))
        return point.folder, why, None

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
        self.removed.append({"id": point_id, "folder": folder, "freed_bytes": freed_bytes, "retention": by_rule, "copies": copies})

        def note(session: Session) -> None:
            removal.take_off_the_list(session, point_id, now=database_now(session), facts=facts)
            queue.write(session, self._run.claim.job_id, self._run.claim.lease_token, {"result": self.result()})

        self._run.in_transaction(note)


def judged_again(session: Session, point: RecoveryPoint, now: datetime) -> tuple[_Why, PointKept | None]:
    """By which rule the point goes now, or why it stays."""
    of_domain = RecoveryPoint.domain_id == point.domain_id
    judged = next(each for each in retention.judge(session, of_domain, now) if each.point.id == point.id)
    if not judged.decision.stays:
        return retention_looks.why_of(judged), None
    return None, PointKept(point=point.id, reasons="; ".join(sentence(ground) for ground in judged.decision.grounds))


def stop_point(run: JobRun, phase: PhaseName) -> None:
    """Where a wish to cancel comes too late. Raises LeaseLost, MustRecover."""
    if run.lease_lost.is_set():
        run.safe_point(phase)
    if run.ends_at is not None:
        raise MustRecover(what="The service was told to stop")
