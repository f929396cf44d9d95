"""How far a job has come: written now and then, and gone when the job does not run any more."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.errors import DatabaseUnavailable, LeaseLost
from service.jobs import run as run_module
from service.jobs.ending import Ending
from service.jobs.run import JobRun
from service.model.lifecycle import JobState, PhaseName
from service.records import queue
from tests.scenes.documents import stale_texts
from tests.scenes.host import Scene


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


def begun(scene: Scene) -> JobRun:
    scene.ask()
    return scene.claim()


def progress(scene: Scene, job_id: str) -> dict[str, Any] | None:
    return scene.job(job_id).progress


def test_a_job_shows_how_far_it_has_come_and_how_long_it_will_take(scene: Scene) -> None:
    run = begun(scene)
    run.progress(PhaseName.transfer, 100, 1100, 50.0, disk="vda")
    assert progress(scene, run.claim.job_id) == {
        "phase": "transfer",
        "disk": "vda",
        "done_bytes": 100,
        "total_bytes": 1100,
        "rate_bytes_s": 50,
        "seconds_left": 20.0,
        "waiting_for": None,
    }
    assert stale_texts(scene.database) == []


def test_what_comes_within_a_second_is_not_written_and_another_disk_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "PROGRESS_PAUSE_S", 3600.0)
    run = begun(scene)
    run.progress(PhaseName.transfer, 1, None, disk="vda")
    run.progress(PhaseName.transfer, 2, None, disk="vda")
    shown = progress(scene, run.claim.job_id)
    assert shown is not None
    assert (shown["done_bytes"], shown["seconds_left"]) == (1, None)
    run.progress(PhaseName.transfer, 3, None, disk="vdb")
    shown = progress(scene, run.claim.job_id)
    assert shown is not None
    assert (shown["done_bytes"], shown["disk"]) == (3, "vdb")


def test_the_next_phase_begins_without_progress(scene: Scene) -> None:
    run = begun(scene)
    run.progress(PhaseName.transfer, 1, None)
    with run.phase(PhaseName.compare):
        assert progress(scene, run.claim.job_id) is None


def test_a_job_that_has_ended_or_was_lost_shows_no_progress(scene: Scene) -> None:
    for end in ("finished", "lost"):
        run = begun(scene)
        run.progress(PhaseName.transfer, 1, None)
        if end == "finished":
            run.finish(Ending())
        else:
            scene.die_in(run)
        assert progress(scene, run.claim.job_id) is None
        assert stale_texts(scene.database) == []


def test_a_copy_does_not_wait_for_a_database_that_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(scene)

    def away(*_args: Any) -> None:
        raise DatabaseUnavailable(reason="away")

    monkeypatch.setattr(queue, "write", away)
    run.progress(PhaseName.transfer, 1, None)


def test_a_worker_that_lost_the_job_is_told(scene: Scene) -> None:
    run = begun(scene)
    scene.die_in(run)
    with scene.database.write() as session:
        queue.resolve_interrupted(session, run.claim.job_id, JobState.queued, {})
    with pytest.raises(LeaseLost):
        run.progress(PhaseName.transfer, 1, None)
