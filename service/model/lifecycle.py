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


POINT_MOVES: dict[PointState | None, frozenset[PointState]] = {
    None: frozenset({PointState.taken}),
    PointState.taken: frozenset(),
}


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
    seal = "seal"
    recover = "recover"


class PhaseOutcome(StrEnum):
    ok = "ok"
    warning = "warning"
    failed = "failed"
    skipped = "skipped"
