"""The table of kinds: what a job of the kind does to a guest, what it locks, and how often it is tried.

One row for each kind. All code that treats kinds differently asks this table, or the handler of the kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class JobKind(StrEnum):
    snapshot = "snapshot"
    preflight = "preflight"
    thaw = "thaw"
    quiesce = "quiesce"
    backup = "backup"
    restore = "restore"
    verify = "verify"
    prune = "prune"
    copy = "copy"
    merge = "merge"


class Locks(StrEnum):
    """What a job locks, from its claim until it has ended or recovery has looked at it."""

    domain = "domain"
    point = "point"
    repository = "repository"
    copy = "copy"
    """One copy of a repository: no two jobs write there at the same time."""
    points = "points"
    """The repository of the points. Points beside the disk lie in no repository: the job locks their domain."""
    nothing = "nothing"


class Lane(StrEnum):
    """The permits that a job needs. Jobs of one lane never wait for jobs of another lane."""

    quick = "quick"
    """Jobs of seconds: they freeze a guest, or only look at a guest."""
    transfer = "transfer"
    """Jobs of hours: they copy disks."""
    maintenance = "maintenance"
    sending = "sending"
    """Jobs that may last days: they carry points to a store far away."""


@dataclass(frozen=True)
class Kind:
    name: JobKind
    #: A freeze may be sent.
    freezes: bool
    #: A recovery point is left when the job succeeds.
    makes_point: bool
    #: The point is taken by a caller, between the opening and the release of a gate.
    has_gate: bool
    locks: Locks
    #: None: the job thaws a guest that was left frozen, and waits for nothing.
    lane: Lane | None
    #: How often a job is tried if its worker dies.
    attempts: int
    #: A caller may ask for the same again, once it has failed.
    retryable: bool

    @property
    def is_urgent(self) -> bool:
        """Jobs of this kind wait for no lock, no permit and no other job."""
        return self.lane is None

    @property
    def is_awaited(self) -> bool:
        """A caller waits for the job now, so an error at once is better than success after a pause."""
        return self.is_urgent or self.has_gate

    @property
    def has_verdict(self) -> bool:
        return self.makes_point or self.has_gate

    @property
    def thaws(self) -> bool:
        """If a job of this kind has succeeded, its guest was thawed."""
        return self.freezes or self.is_urgent


LONG_JOB_ATTEMPTS = 10
"""A job of hours that copies continues where its worker died, so a death costs little."""

_ROWS = (
    Kind(JobKind.snapshot, freezes=True, makes_point=True, has_gate=False, locks=Locks.domain, lane=Lane.quick, attempts=3, retryable=True),
    Kind(
        JobKind.preflight, freezes=False, makes_point=False, has_gate=False, locks=Locks.domain, lane=Lane.quick, attempts=3, retryable=True
    ),
    Kind(JobKind.thaw, freezes=False, makes_point=False, has_gate=False, locks=Locks.nothing, lane=None, attempts=3, retryable=True),
    # A caller who waited for a gate that never came does not wait for the next attempt.
    Kind(JobKind.quiesce, freezes=True, makes_point=False, has_gate=True, locks=Locks.domain, lane=Lane.quick, attempts=1, retryable=False),
    # A worker that dies while it copies costs a part of the copy, and never the point: so such a job is tried often.
    Kind(
        JobKind.backup,
        freezes=True,
        makes_point=True,
        has_gate=False,
        locks=Locks.domain,
        lane=Lane.transfer,
        attempts=LONG_JOB_ATTEMPTS,
        retryable=True,
    ),
    Kind(
        JobKind.restore,
        freezes=False,
        makes_point=False,
        has_gate=False,
        locks=Locks.domain,
        lane=Lane.transfer,
        attempts=LONG_JOB_ATTEMPTS,
        retryable=True,
    ),
    Kind(
        JobKind.verify,
        freezes=False,
        makes_point=False,
        has_gate=False,
        locks=Locks.point,
        lane=Lane.maintenance,
        attempts=LONG_JOB_ATTEMPTS,
        retryable=True,
    ),
    Kind(
        JobKind.prune,
        freezes=False,
        makes_point=False,
        has_gate=False,
        locks=Locks.repository,
        lane=Lane.maintenance,
        attempts=LONG_JOB_ATTEMPTS,
        retryable=True,
    ),
    Kind(
        JobKind.copy,
        freezes=False,
        makes_point=False,
        has_gate=False,
        locks=Locks.copy,
        lane=Lane.sending,
        attempts=LONG_JOB_ATTEMPTS,
        retryable=True,
    ),
    # It locks what a prune locks, as the one would remove what the other reads.
    Kind(
        JobKind.merge,
        freezes=False,
        makes_point=False,
        has_gate=False,
        locks=Locks.points,
        lane=Lane.maintenance,
        attempts=LONG_JOB_ATTEMPTS,
        retryable=True,
    ),
)

_TABLE: dict[str, Kind] = {row.name: row for row in _ROWS}
KINDS: Mapping[str, Kind] = MappingProxyType(_TABLE)


def names_of(is_so: Callable[[Kind], bool]) -> tuple[str, ...]:
    """The names of the kinds whose row satisfies the condition, as in the column `kind`."""
    return tuple(row.name.value for row in _ROWS if is_so(row))


MAKE_POINT = names_of(lambda kind: kind.makes_point)
HAVE_GATE = names_of(lambda kind: kind.has_gate)
SEALS_POINT = JobKind.backup.value
"""The kind that leaves its point in a repository."""
RESTORES_POINT = JobKind.restore.value
"""The kind that brings a point back."""
VERIFIES_POINT = JobKind.verify.value
"""The kind that tests a point."""
REMOVES_POINTS = JobKind.prune.value
"""The kind that takes points out of a repository."""
MERGES_POINTS = JobKind.merge.value
"""The kind that moves the clusters of points into those that stand on them."""


def kind_of(name: str) -> Kind:
    """The kind that a job's row names. Raises ValueError if a newer version made the job. Such a job is not claimed here."""
    if name not in KINDS:
        raise ValueError(f"{name!r} is not a kind of job that this version knows")
    return KINDS[name]
