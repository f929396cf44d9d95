"""Which states a job may be in, and every move between them. docs/life-of-a-job.md has a sentence for each arrow.

```
 --n--> queued --a--> running --b--> succeeded
          |              |---c--> failed
          |              |---d--> cancelled      (at the next safe point: never between freeze and thaw)
          |              `---e--> interrupted --f--> queued (attempt + 1)  |  --g--> failed  |  --i--> cancelled
          `--h--> cancelled
```
"""

from enum import StrEnum


class JobState(StrEnum):
    queued = "queued"
    running = "running"
    interrupted = "interrupted"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


FINAL_STATES = frozenset({JobState.succeeded, JobState.failed, JobState.cancelled})

#: From each state to where a job may go. None: it does not exist yet.
MOVES: dict[JobState | None, frozenset[JobState]] = {
    None: frozenset({JobState.queued}),
    JobState.queued: frozenset({JobState.running, JobState.cancelled}),
    JobState.running: frozenset({JobState.succeeded, JobState.failed, JobState.cancelled, JobState.interrupted}),
    JobState.interrupted: frozenset({JobState.queued, JobState.failed, JobState.cancelled}),
    JobState.succeeded: frozenset(),
    JobState.failed: frozenset(),
    JobState.cancelled: frozenset(),
}


def may_move(source: JobState | None, to: JobState) -> bool:
    return to in MOVES[source]


class PointState(StrEnum):
    """What a recovery point is."""

    taken = "taken"
    """The files below the overlays of the guest's disks, beside them."""
    sealed = "sealed"
    """Complete in a repository, and not known to be bad."""
    damaged = "damaged"
    """A verify found that its bytes are not what was sealed."""
    missing = "missing"
    """Its folder is not in its repository any more."""
    leaving = "leaving"
    """It was given up, and its files are being removed. Nothing begins to use it any more."""
    removed = "removed"
    """Its files are removed. Only the event tells this: the row goes with it."""


POINT_MOVES: dict[PointState | None, frozenset[PointState]] = {
    None: frozenset({PointState.taken, PointState.sealed}),
    # Its files become a part of the disk again: a merge begins, and ends the point.
    PointState.taken: frozenset({PointState.leaving}),
    # What was damaged or missing may be put back by a person: the next verify or import sees that.
    PointState.sealed: frozenset({PointState.damaged, PointState.missing, PointState.leaving}),
    PointState.damaged: frozenset({PointState.sealed, PointState.missing, PointState.leaving}),
    PointState.missing: frozenset({PointState.sealed, PointState.damaged, PointState.leaving}),
    # Back only where the repository has refused, before any file was touched.
    PointState.leaving: frozenset({PointState.removed, PointState.sealed, PointState.damaged}),
    PointState.removed: frozenset(),
}


#: What a caller can count on.
GOOD_POINTS = (PointState.taken.value, PointState.sealed.value)


def point_may_move(source: PointState | None, to: PointState) -> bool:
    return to in POINT_MOVES[source]


class PhaseName(StrEnum):
    preflight = "preflight"
    writers_before = "writers_before"
    prepare = "prepare"
    freeze = "freeze"
    point_in_time = "point_in_time"
    thaw = "thaw"
    writers_after = "writers_after"
    evaluate = "evaluate"
    discard = "discard"
    transfer = "transfer"
    compare = "compare"
    seal = "seal"
    merge = "merge"
    plan = "plan"
    checksums = "checksums"
    stop = "stop"
    write = "write"
    define = "define"
    start = "start"
    flatten = "flatten"
    structure = "structure"
    filesystem = "filesystem"
    remove = "remove"
    heal = "heal"
    attack = "attack"
    recover = "recover"


class PhaseOutcome(StrEnum):
    ok = "ok"
    warning = "warning"
    failed = "failed"
    skipped = "skipped"
