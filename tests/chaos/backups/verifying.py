"""A round with a verify: no fault makes a good point a bad one, and what is damaged is found, refused, and good again once it is mended."""

import random
from collections.abc import Iterator
from typing import Any

from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.asking import ask, done, newest_point
from tests.chaos.backups.backing_up import JOB_TIMEOUT_S, allowed, told
from tests.chaos.backups.repository import LaneRepository, repository_of
from tests.chaos.faults import FAULTS, Strike
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage

RATES = (None, 6_000_000, 20_000_000)


def breaches(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    fault, repository = FAULTS[outcome.fault], repository_of(stage).ensure()
    point = newest_point(stage, repository)
    stage.wait_worker()
    mark = stage.guest.mark()
    fault.prepare(stage)
    body = {"kind": "verify", "recovery_point": point["id"], "rate_limit_bytes": chance.choice(RATES)}
    strike = Strike(stage, ask(stage, body), chance)
    outcome.job = strike.job_id
    try:
        fault.strike(strike)
        job = stage.api.wait(strike.job_id, JOB_TIMEOUT_S)
        outcome.ended = told(job)
        if repository.damage is not None:
            yield from _damage_not_told(stage, repository, point["id"], job)
    finally:
        fault.clean_up(stage)
        repository.storage.heal()
        is_mended = repository.mend()
    if not is_mended:
        yield from allowed(job, outcome.fault, strike)
        yield from _made_bad(repository, point["id"], job)
    yield from of_backups.guest_hurt(stage.guest.stalls(mark), job, 0, strike.obstacle_s)
    repository.wait_ready()
    yield from _still_bad(repository, point["id"], done(stage, {**body, "rate_limit_bytes": None}))
    yield from of_backups.unrestorable(repository, [point], repository.moments.get(point["id"]))


def _damage_not_told(stage: Stage, repository: LaneRepository, point_id: str, job: dict[str, Any]) -> Iterator[Breach]:
    """A point that is listed as good, and is not, is the worst that a repository can hold."""
    state = repository.point(point_id)["state"]
    if state != "damaged":
        yield Breach("points_unrestorable", f"{repository.damage}: the verify ended {told(job)}, and the point is {state}")
    folder = stage.guest.folder / "refused"
    folder.mkdir(exist_ok=True)
    # At once, or by the job: as the point is on record.
    answer = stage.api.request(
        "POST", "/api/v1/jobs", json={"kind": "restore", "recovery_point": point_id, "mode": "files", "folder": str(folder)}
    )
    document = answer.json()
    refusal = (stage.api.wait(document["id"], JOB_TIMEOUT_S)["error"] or {}) if answer.status_code == 202 else document
    if refusal.get("code") != "point_damaged":
        yield Breach("points_unrestorable", f"{repository.damage}: a restore of the point was answered with {refusal}")
    if left := sorted(file.name for file in folder.iterdir()):
        yield Breach("stories_untrue", f"the restore of a damaged point left {left}")
    folder.rmdir()


def _made_bad(repository: LaneRepository, point_id: str, job: dict[str, Any]) -> Iterator[Breach]:
    if (state := repository.point(point_id)["state"]) != "sealed":
        yield Breach("stories_untrue", f"a good point is {state} after its verify ended {told(job)}")


def _still_bad(repository: LaneRepository, point_id: str, job: dict[str, Any]) -> Iterator[Breach]:
    point = repository.point(point_id)
    proofs = [proof for proof in point["proofs"] or [] if proof["job_id"] == job["id"]]
    if job["state"] != "succeeded" or point["state"] != "sealed" or not proofs or not all(proof["ok"] is not False for proof in proofs):
        yield Breach("stories_untrue", f"the undisturbed verify of a good point ended {told(job)}, the point is {point['state']}: {proofs}")
