"""Which states a job may be in, and every move between them.

```
 queued --a--> running --b--> succeeded
   |              |---c--> failed
   |              |---d--> cancelled      (at the next safe point: never between freeze and thaw)
   |              `---e--> interrupted --f--> queued (attempt + 1)  |  --g--> failed  |  --i--> cancelled
   `--h--> cancelled
```
e: the worker died or lost its lease. f, g, i: only after recovery has asked libvirt and the agent what is true.
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

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.queued: frozenset({JobState.running, JobState.cancelled}),
    JobState.running: frozenset({JobState.succeeded, JobState.failed, JobState.cancelled, JobState.interrupted}),
    JobState.interrupted: frozenset({JobState.queued, JobState.failed, JobState.cancelled}),
    JobState.succeeded: frozenset(),
    JobState.failed: frozenset(),
    JobState.cancelled: frozenset(),
}


def may_move(current: JobState, to: JobState) -> bool:
    return to in MOVES[current]


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
