"""Jobs of the lane that name a point, and the undisturbed backup that rounds of restore and verify begin with."""

from typing import Any

from tests.chaos.backups.backing_up import JOB_TIMEOUT_S, back_up, write_something
from tests.chaos.backups.repository import LaneRepository
from tests.chaos.stage import Stage
from tests.lab.places import LabError

MIN_POINTS = 2


def ask(stage: Stage, body: dict[str, Any]) -> str:
    """The id of the new job."""
    answer = stage.api.request("POST", "/api/v1/jobs", json=body)
    if answer.status_code != 202:
        raise LabError(f"{body['kind']} was answered with {answer.status_code}: {answer.text}")
    return str(answer.json()["id"])


def done(stage: Stage, body: dict[str, Any]) -> dict[str, Any]:
    """The job when it has ended."""
    return stage.api.wait(ask(stage, body), JOB_TIMEOUT_S)


def newest_point(stage: Stage, repository: LaneRepository) -> dict[str, Any]:
    """With a chain below it, as far as there can be one."""
    while len(repository.points()) < MIN_POINTS:
        write_something(stage, 1)
        job = back_up(stage, repository)
        if job["state"] != "succeeded":
            raise LabError(f"a backup that nothing disturbed ended {job['state']}: {job['error']}")
    return repository.points()[-1]
