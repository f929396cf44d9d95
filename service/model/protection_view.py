"""What follows from the facts of one domain before a cause is looked for: which points count, and until when the promise holds."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache

from service.model.kinds import MAKE_POINT, VERIFIES_POINT
from service.model.lifecycle import GOOD_POINTS
from service.model.protection_facts import JobFacts, Known, PointFacts, PolicyFacts, Promise, PromisedProof, RunFacts
from service.model.verdict import Verdict, satisfies

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How much later than now a point may say it is. A point that is later still does not count: one of the clocks is wrong."""
OVERDUE = timedelta(minutes=15)
"""How late a run may begin. After that nobody starts the runs."""


class Part(StrEnum):
    """A part of the promise."""

    rpo = "rpo"
    verdict = "verdict"
    proof = "proof"


class Seen:
    """The points that count. Each None: there is no such point."""

    __slots__ = ("future", "good", "kept", "lost", "proven_at", "sufficient")

    def __init__(self) -> None:
        #: The newest good point, whatever its verdict.
        self.good: PointFacts | None = None
        #: The newest good point with the promised verdict.
        self.sufficient: PointFacts | None = None
        #: The newest good point with the promised verdict and a proof that is recent enough.
        self.kept: PointFacts | None = None
        #: The newest point that is damaged or missing, if it is newer than `sufficient`.
        self.lost: PointFacts | None = None
        #: A point that is dated in the future.
        self.future: PointFacts | None = None
        #: When a point with the promised verdict last had the promised proof.
        self.proven_at: datetime | None = None


def look(points: Sequence[PointFacts], promise: Promise, now: datetime) -> Seen:
    """`points`: newest first. Without a promised proof this ends at the first point that is good enough."""
    seen, latest, required = Seen(), now + CLOCK_TOLERANCE, promise.verdict
    enough = always_enough(required)
    for point in points:
        if point.at > latest:
            seen.future = seen.future or point
        elif point.state not in GOOD_POINTS:
            seen.lost = seen.lost or point
        else:
            seen.good = seen.good or point
            if point.verdict in enough or (point.shut_off_cleanly is not None and _is_enough(point, required)):
                seen.sufficient = point
                break
    if promise.proof is None:
        seen.kept = seen.sufficient
    elif seen.sufficient is not None:
        _look_at_proofs(seen, points, promise, promise.proof, now)
    return seen


def _look_at_proofs(seen: Seen, points: Sequence[PointFacts], promise: Promise, promised: PromisedProof, now: datetime) -> None:
    """The newest proof may be that of any point, so all points are looked at."""
    kind, latest, oldest = promised.kind.value, now + CLOCK_TOLERANCE, now - timedelta(seconds=promised.max_age_s)
    for point in points:
        proof = point.proofs.get(kind)
        if proof is None or proof.ok is not True or proof.at > latest:
            continue
        if point.at > latest or point.state not in GOOD_POINTS or not _is_enough(point, promise.verdict):
            continue
        if seen.proven_at is None or proof.at > seen.proven_at:
            seen.proven_at = proof.at
        if seen.kept is None and proof.at > oldest:
            seen.kept = point


def _is_enough(point: PointFacts, required: Verdict | None) -> bool:
    if point.shut_off_cleanly is None or required is None:
        return point.verdict in always_enough(required)
    return satisfies(point.verdict, required, point.shut_off_cleanly)


@cache
def always_enough(required: Verdict | None) -> tuple[Verdict, ...]:
    """The verdicts that are good enough, whatever is known of how the domain was shut off."""
    return tuple(verdict for verdict in Verdict if required is None or satisfies(verdict, required, None))


@dataclass(slots=True)
class View:
    known: Known
    policy: PolicyFacts
    now: datetime
    seen: Seen
    #: Until when the newest point is recent enough. None: nothing is promised of its age.
    points_until: datetime | None
    #: Until when the newest proof is recent enough. None: no proof is promised.
    proof_until: datetime | None

    @property
    def promise(self) -> Promise:
        return self.policy.promise

    @property
    def newest_run(self) -> RunFacts | None:
        return self.known.runs[0] if self.known.runs else None

    def newest_job(self, *, makes_point: bool) -> JobFacts | None:
        """The newest that has ended."""
        if not self.known.jobs:
            return None
        kinds = MAKE_POINT if makes_point else (VERIFIES_POINT,)
        return next((job for job in self.known.jobs if job.kind in kinds and job.has_ended), None)

    def is_mended_since(self, at: datetime) -> bool:
        """A good point is newer than that."""
        return self.seen.good is not None and self.seen.good.at >= at

    def running_job(self) -> JobFacts | None:
        """The job that makes the next point, and has not ended."""
        # Most domains have neither a job that failed nor one that runs, and a generator costs more than all else here.
        if not self.known.jobs:
            return None
        return next((job for job in self.known.jobs if job.kind in MAKE_POINT and not job.has_ended), None)

    def next_point_start(self) -> datetime | None:
        """When the next point is begun. It may be in the past: its job runs, or nobody started the run."""
        running = self.running_job()
        if running is not None:
            return running.at
        return self.known.next_fire_at or _after(self.policy.point_starts, self.now)

    def next_verify_start(self) -> datetime | None:
        return _after(self.policy.verify_starts, self.now)

    def is_late_for_points(self) -> bool:
        """The newest point becomes too old before the next run can have made another."""
        if self.points_until is None:
            return False
        start = self.next_point_start()
        return start is None or start + timedelta(seconds=self.known.takes_s) > self.points_until

    def is_late_for_proof(self) -> bool:
        """No track verifies: then it is not known when the next proof comes."""
        if self.proof_until is None or not self.policy.verify_starts:
            return False
        start = self.next_verify_start()
        return start is None or start > self.proof_until

    def is_overdue(self) -> bool:
        fire_at = self.known.next_fire_at
        return fire_at is not None and fire_at + OVERDUE <= self.now


def view_of(known: Known, policy: PolicyFacts, now: datetime) -> View:
    promise, since = policy.promise, known.covered_since
    seen = look(known.points, promise, now)
    points_until = proof_until = None
    if promise.rpo_s is not None:
        newest = seen.sufficient.at if seen.sufficient is not None else since
        points_until = max(newest, since) + timedelta(seconds=promise.rpo_s)
    if promise.proof is not None:
        proof_until = max(seen.proven_at or since, since) + timedelta(seconds=promise.proof.max_age_s)
    return View(known, policy, now, seen, points_until, proof_until)


def may_be_late(known: Known, now: datetime) -> bool:
    """False: the newest point is good enough, and the next run comes before it is too old. Answered for each of thousands of domains."""
    policy = known.policy
    if not isinstance(policy, PolicyFacts):
        return False
    newest, rpo_s, next_at = known.points[0] if known.points else None, policy.promise.rpo_s, known.next_fire_at
    if (
        newest is None
        or not newest.is_good
        or newest.verdict not in always_enough(policy.promise.verdict)
        or newest.at > now + CLOCK_TOLERANCE
    ):
        return True
    if rpo_s is None:
        return False
    until = newest.at + timedelta(seconds=rpo_s)
    return bool(known.jobs) or until <= now or next_at is None or next_at + timedelta(seconds=known.takes_s) > until


def _after(instants: tuple[datetime, ...], now: datetime) -> datetime | None:
    n = bisect_right(instants, now)
    return instants[n] if n < len(instants) else None
