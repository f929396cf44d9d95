"""A round with a restore: the fault, then what is true of the restored disk, or of what a failed restore left."""

import random
from collections.abc import Iterator
from typing import Any

from service.errors import RestoreNotWrittenOut
from tests.chaos import invariants
from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.asking import ask, done, newest_point
from tests.chaos.backups.backing_up import JOB_TIMEOUT_S, allowed, told
from tests.chaos.backups.repository import LaneRepository, repository_of
from tests.chaos.backups.restored import Restored
from tests.chaos.faults import FAULTS, Strike
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage

MODES = {"files": 2, "new": 2, "instant": 4, "in_place": 2}
RATES = (None, 6_000_000, 20_000_000)


def breaches(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    fault, repository = FAULTS[outcome.fault], repository_of(stage).ensure()
    point = newest_point(stage, repository)
    mode = "instant" if outcome.fault.startswith("restore_instant") else chance.choices(list(MODES), list(MODES.values()))[0]
    restored = Restored(stage, mode, is_started=chance.random() < 0.4)
    stage.note(f"mode {mode}, started: {restored.is_started}")
    fault.prepare(stage)
    stage.wait_worker()
    mark = stage.guest.mark()
    restored.make_room()
    try:
        body = restored.request(point["id"], chance.choice(RATES))
        strike = Strike(stage, ask(stage, body), chance)
        outcome.job = strike.job_id
        try:
            fault.strike(strike)
            job = stage.api.wait(strike.job_id, JOB_TIMEOUT_S)
        finally:
            fault.clean_up(stage)
            repository.storage.heal()
        outcome.ended = f"{mode}: {told(job)}"
        yield from allowed(job, outcome.fault, strike)
        yield from _after(stage, repository, restored, job, point, body)
        if mode != "in_place":
            yield from of_backups.guest_hurt(stage.guest.stalls(mark), job, 0, strike.obstacle_s)
    finally:
        restored.remove()
        if mode == "in_place":
            remove_old_overlays(stage)
    yield from of_backups.unrestorable(repository, [point], repository.moments.get(point["id"]))
    yield from invariants.no_heartbeat(stage)


def remove_old_overlays(stage: Stage) -> None:
    """A restore in place keeps the disks that it replaces. A person removes them, and so does the round."""
    kept = {*stage.chain_files(), *stage.guest.disks.values()}
    for folder in stage.overlay_folders:
        for file in folder.glob("*.qcow2"):
            if file not in kept:
                file.unlink()


def _runs_on(job: dict[str, Any]) -> bool:
    """An instant restore that was cancelled behind its running guest, and says so."""
    told = (job["result"] or {}).get("restore") or {}
    is_behind = job["state"] == "cancelled" and job["error"]["facts"]["phase"] == "flatten"
    has_said = told.get("reads_repository") == [] or any(each["code"] == "stays_on_repository" for each in told.get("warnings", ()))
    return is_behind and has_said


def _after(
    stage: Stage, repository: LaneRepository, restored: Restored, job: dict[str, Any], point: dict[str, Any], body: dict[str, Any]
) -> Iterator[Breach]:
    """A restore that failed leaves nothing, and succeeds when it is asked for again."""
    if (job["error"] or {}).get("code") == RestoreNotWrittenOut.code:
        # The job says that its domain is not to be trusted. A person removes it, as the remedy says.
        restored.remove()
        restored.make_room()
        job = done(stage, body)
    elif _runs_on(job):
        # The guest was there already. The job tells that it stays on the repository, and a person decides.
        yield from restored.not_running()
        restored.remove()
        restored.make_room()
        job = done(stage, body)
    elif job["state"] != "succeeded":
        yield from restored.half_made()
        repository.wait_ready()
        job = done(stage, body)
    if job["state"] != "succeeded":
        yield Breach("points_unrestorable", f"{body['mode']}: the undisturbed restore ended {told(job)}: {job['error']}")
        return
    image = repository.folder_of(point) / "vda.qcow2"
    yield from restored.not_as_the_point(image, repository.moments.get(point["id"]))
