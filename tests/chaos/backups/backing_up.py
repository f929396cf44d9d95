"""A round with a backup: the fault, then what is true of the guest, of the disk and of every point, then a backup that nothing disturbs."""

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tests.chaos import invariants
from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.repository import LaneRepository, Moment, repository_of
from tests.chaos.backups.watch import watched
from tests.chaos.faults import FAULTS, Strike
from tests.chaos.faults.strike import LONG_JOB_S
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage

HOLD_LIMIT_MS = 1_500
JOB_TIMEOUT_S = LONG_JOB_S
RATES = (None, 4_000_000, 12_000_000)
"""Bytes a second: a copy of this disk is over before a fault can meet it, otherwise."""
WRITTEN_MB = (0, 1, 6)
KNOWN_MB = 40


def breaches(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    fault, repository = FAULTS[outcome.fault], repository_of(stage).ensure()
    points_before = {point["id"] for point in repository.points()}
    fault.prepare(stage)
    stage.wait_worker()
    write_something(stage, chance.choice(WRITTEN_MB))
    mark, known, files = stage.guest.mark(), stage.guest.heartbeats()[-1:], stage.chain_files()
    moment = acknowledged(stage)
    strike = Strike(stage, stage.api.create(stage.guest.name, "backup", **_asked(repository, chance)), chance)
    outcome.job = strike.job_id
    with watched(stage) as watch:
        try:
            fault.strike(strike)
            job = stage.api.wait(strike.job_id, JOB_TIMEOUT_S)
        finally:
            fault.clean_up(stage)
            repository.storage.heal()
    outcome.ended = told(job)
    yield from of_backups.guest_paused(watch.seen)
    if silent := list(invariants.no_heartbeat(stage)):
        yield from silent
        return
    if not strike.hits_guest:
        stalls = stage.guest.console.stalls(mark)
        outcome.longest_stall_ms = max((stall.ms for stall in stalls), default=0.0)
        yield from of_backups.guest_hurt(stalls, job, HOLD_LIMIT_MS, strike.obstacle_s)
    stage.guest.wait_agent()
    yield from invariants.left_frozen(stage.guest.freeze_status())
    yield from chain(allowed(job, outcome.fault, strike), of_backups.story_untrue(stage, repository, job))
    yield from invariants.durable_writes_lost(stage, [*known, *stage.guest.heartbeats(0 if strike.hits_guest else mark)])
    yield from chain(invariants.nameless_disk(stage, job), invariants.chain_broken(stage), invariants.strays(stage, job))
    repository.wait_ready()
    mine = [point for point in repository.points() if point["id"] not in points_before]
    repository.moments.update({point["id"]: moment for point in mine})
    yield from of_backups.unrestorable(repository, mine, moment)
    yield from undisturbed(stage, repository, files)


def undisturbed(stage: Stage, repository: LaneRepository, files: Sequence[Path]) -> Iterator[Breach]:
    """The job after a fault has been healed has nothing in its way, and clears up what the fault left."""
    job = back_up(stage, repository)
    yield from invariants.next_job_failed(job)
    yield from chain(of_backups.disk_not_at_rest(stage, files), of_backups.checkpoints_left(stage), of_backups.unlisted(repository))
    mine = [point for point in repository.points() if point["job_id"] == job["id"]]
    yield from of_backups.unrestorable(repository, mine, repository.moments.get(mine[0]["id"]) if mine else None)


def back_up(stage: Stage, repository: LaneRepository) -> dict[str, Any]:
    """A job that nothing disturbs. What it must hold is noted."""
    moment = acknowledged(stage)
    job = stage.api.wait(stage.api.create(stage.guest.name, "backup", repository=repository.id), JOB_TIMEOUT_S)
    repository.moments.update({point["id"]: moment for point in repository.points() if point["job_id"] == job["id"]})
    return job


def acknowledged(stage: Stage) -> Moment:
    return Moment(max((beat.acknowledged for beat in stage.guest.heartbeats()[-1:]), default=0))


def _asked(repository: LaneRepository, chance: random.Random) -> dict[str, Any]:
    return {
        "repository": repository.id,
        "freeze": {"timeout_ms": 5_000, "hold_limit_ms": HOLD_LIMIT_MS, "preflush": chance.random() < 0.3},
        "level": chance.choices(["auto", "full"], [3, 1])[0],
        "compress": chance.random() < 0.2,
        "compare": chance.choice(["nothing", "copied", "everything"]),
        "rate_limit_bytes": chance.choice(RATES),
    }


def write_something(stage: Stage, mb: int) -> None:
    """Into a file of which the first copy makes the disk large enough that a copy of it takes a while."""
    file = "/data/known"
    script = f"""
        [ -e {file} ] || dd if=/dev/urandom of={file} bs=1M count={KNOWN_MB} conv=fsync
        [ {mb} = 0 ] || dd if=/dev/urandom of={file} bs=1M count={mb} seek=$((RANDOM % {KNOWN_MB - max(WRITTEN_MB)})) conv=notrunc,fsync
    """
    stage.guest.exec("/bin/sh", "-c", script, timeout=120)


def allowed(job: dict[str, Any], fault: str, strike: Strike) -> Iterator[Breach]:
    """A job that nothing disturbed succeeds; a job is cancelled only where that was asked."""
    if (fault.endswith("_nothing") and job["state"] != "succeeded") or (job["state"] == "cancelled" and not strike.asks_to_cancel):
        yield Breach("stories_untrue", f"after {fault} the job ended {job['state']}: {(job['error'] or {}).get('detail')}")


def told(job: dict[str, Any]) -> str:
    code = (job["error"] or {}).get("code")
    return f"{job['state']} ({code})" if code else str(job["state"])
