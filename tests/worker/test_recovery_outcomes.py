"""Each recovery is counted under what came of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from service.db.engine import Database
from service.records import queue
from tests.scenes.deaths import die, recovered
from tests.scenes.host import FREEZE, Scene
from tests.worker.test_recovery_discard import FALLS_SHORT

OUTCOMES = ("requeued", "failed", "cancelled", "point_kept", "rolled_back", "waiting")


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def counted() -> dict[str, float]:
    return {outcome: REGISTRY.get_sample_value("stillpoint_recoveries_total", {"outcome": outcome}) or 0.0 for outcome in OUTCOMES}


def dead_in(scene: Scene, call: str, *, after: bool = True, **ask: Any) -> str:
    scene.ask(**ask)
    return die(scene, scene.domain.die_in(call, after=after))


def cancelled(scene: Scene) -> str:
    job_id = dead_in(scene, FREEZE)
    with scene.database.write() as session:
        queue.request_cancel(session, job_id)
    return job_id


def paused(scene: Scene) -> str:
    job_id = dead_in(scene, FREEZE)
    scene.domain.pause()
    return job_id


def stuck(scene: Scene) -> str:
    job_id = dead_in(scene, "block_commit_active", **FALLS_SHORT)
    scene.domain.shut_off()
    return job_id


LEFT: dict[str, tuple[Callable[[Scene], str], str]] = {
    "frozen": (lambda scene: dead_in(scene, FREEZE), "requeued"),
    "frozen in its last attempt": (lambda scene: dead_in(scene, FREEZE, max_attempts=1), "failed"),
    "frozen and cancelled": (cancelled, "cancelled"),
    "with a point": (lambda scene: dead_in(scene, "snapshot_create"), "point_kept"),
    "in a discard": (lambda scene: dead_in(scene, "block_commit_active", **FALLS_SHORT), "rolled_back"),
    "in a discard that cannot be finished": (stuck, "failed"),
    "paused": (paused, "waiting"),
}


@pytest.mark.parametrize(("left", "outcome"), LEFT.values(), ids=LEFT.keys())
def test_counted_once_under_its_outcome(scene: Scene, left: Callable[[Scene], str], outcome: str) -> None:
    job_id = left(scene)
    before = counted()
    recovered(scene, job_id)
    recovered(scene, job_id)
    assert counted() == {**before, outcome: before[outcome] + 1}
