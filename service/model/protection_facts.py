"""What is known of one domain and of the promise that was made for it: the input of `service.model.protection`.

What is made for each domain is not frozen: 5,000 of each are made for one answer, and frozen ones take four times as long to make.
Nobody changes them nevertheless.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from service.model.kinds import MAKE_POINT, VERIFIES_POINT
from service.model.lifecycle import FINAL_STATES, GOOD_POINTS, JobState, PointState
from service.model.repository import ProofKind, RepositoryState
from service.model.verdict import Verdict

_NOT_DONE = (JobState.failed.value, JobState.cancelled.value)


class Lowered(NamedTuple):
    """The first reason that lowered a verdict."""

    code: str
    detail: str


class ProofFacts(NamedTuple):
    at: datetime
    #: None: the test could not tell.
    ok: bool | None


@dataclass(frozen=True, slots=True)
class HostFacts:
    id: str
    #: The last sign of life of its worker; None: the worker is alive.
    silent_since: datetime | None = None
    #: Why the worker cannot reach libvirt; None: it can.
    libvirt_error: str | None = None


@dataclass(slots=True)
class DomainFacts:
    id: str
    name: str
    host: HostFacts
    is_paused: bool = False
    #: False: libvirt forgets the domain when it is shut off.
    is_persistent: bool = True
    #: Since when its host does not list it any more.
    gone_since: datetime | None = None


@dataclass(slots=True)
class PointFacts:
    id: str
    at: datetime
    verdict: Verdict
    state: str = PointState.sealed.value
    #: The newest proof of each kind.
    proofs: Mapping[str, ProofFacts] = field(default_factory=dict)
    repository_id: str | None = None
    lowered_by: Lowered | None = None
    #: As `service.model.verdict.Evidence` has it.
    shut_off_cleanly: bool | None = None

    @property
    def is_good(self) -> bool:
        return self.state in GOOD_POINTS


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What became of one due instant of a track. `error`: of a run that was refused, as a document."""

    track: str
    due_at: datetime
    #: `queued`, `missed` or `skipped`.
    outcome: str
    reason: str | None = None
    job_id: str | None = None
    error: Mapping[str, Any] | None = None


@dataclass(slots=True)
class JobFacts:
    id: str
    kind: str
    state: str
    #: When it ended. Of a job that has not ended: when it began, or was made.
    at: datetime
    #: As the job's row has it: code, title, detail, remedy, facts.
    error: Mapping[str, Any] | None = None
    #: How many jobs of the kind in a row ended with this code, with this one.
    in_a_row: int = 1
    #: When the first of them ended.
    since: datetime | None = None
    lowered_by: Lowered | None = None

    @property
    def has_failed(self) -> bool:
        return self.state in _NOT_DONE

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    id: str
    name: str
    state: str = RepositoryState.ready.value
    #: The error of the last look, as a document.
    error: Mapping[str, Any] | None = None
    free_bytes: int | None = None
    #: By the trend (`service.model.trend`).
    full_at: datetime | None = None


class PromisedProof(NamedTuple):
    kind: ProofKind
    max_age_s: float


@dataclass(frozen=True, slots=True)
class Promise:
    """Each None: nothing is promised of that."""

    rpo_s: float | None = None
    verdict: Verdict | None = None
    proof: PromisedProof | None = None

    def as_document(self) -> dict[str, Any]:
        proof = self.proof
        return {
            "rpo_s": self.rpo_s,
            "verdict": self.verdict.value if self.verdict is not None else None,
            "proof": {"kind": proof.kind.value, "max_age_s": proof.max_age_s} if proof is not None else None,
        }


@dataclass(frozen=True, slots=True)
class TrackFacts:
    name: str
    kind: str
    repository_id: str | None = None
    #: The next instants that the rule names, in order: as many that each gap of the rule is seen.
    due: tuple[datetime, ...] = ()
    #: The instants at which a run can begin: without those that a blackout takes, and those that wait for its end at its end.
    starts: tuple[datetime, ...] = ()

    @property
    def makes_point(self) -> bool:
        return self.kind in MAKE_POINT


@dataclass(frozen=True)
class PolicyFacts:
    """The same object serves all domains of the policy, so the gaps are computed once."""

    name: str
    promise: Promise
    tracks: tuple[TrackFacts, ...]
    is_paused: bool = False

    @cached_property
    def point_starts(self) -> tuple[datetime, ...]:
        return _in_order(track.starts for track in self.tracks if track.makes_point)

    @cached_property
    def verify_starts(self) -> tuple[datetime, ...]:
        return _in_order(track.starts for track in self.tracks if track.kind == VERIFIES_POINT)

    @cached_property
    def longest_gap_s(self) -> float | None:
        """Between two instants that the rules name. None: fewer than two are known."""
        return _longest_gap_s(_in_order(track.due for track in self.tracks if track.makes_point))

    @cached_property
    def longest_gap_with_blackouts_s(self) -> float | None:
        return _longest_gap_s(self.point_starts)

    @cached_property
    def repositories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(track.repository_id for track in self.tracks if track.repository_id is not None))


@dataclass(frozen=True, slots=True)
class TieFacts:
    """Policies that select the domain equally well, so none of them has it."""

    names: tuple[str, ...]


@dataclass(slots=True)
class Known:
    """All about one domain. Points, runs and jobs: newest first."""

    domain: DomainFacts
    policy: PolicyFacts | TieFacts | None
    #: When the policy began to have the domain. A promise does not look back further.
    covered_since: datetime
    points: Sequence[PointFacts] = ()
    runs: Sequence[RunFacts] = ()
    jobs: Sequence[JobFacts] = ()
    repositories: Mapping[str, RepositoryFacts] = field(default_factory=dict)
    #: When the next point is begun, as the schedules of the domain say. None: as the policy says.
    next_fire_at: datetime | None = None
    #: How long a run usually takes, from its due instant to the sealed point.
    takes_s: float = 0.0


def _in_order(each: Iterable[tuple[datetime, ...]]) -> tuple[datetime, ...]:
    return tuple(sorted({instant for instants in each for instant in instants}))


def _longest_gap_s(instants: tuple[datetime, ...]) -> float | None:
    return max(((later - earlier).total_seconds() for earlier, later in pairwise(instants)), default=None)
