"""The merge at the end of a backup: what its job shows of it, and that it is done whatever a caller wishes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.db.engine import Database
from service.db.tables import Job
from service.disks import merge_space, merging
from service.errors import MergeWithoutSpace
from service.jobs import run as job_run
from tests.scenes.backups import BackupScene
from tests.scenes.host import error_of

MIB = 1 << 20


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path)


def shown(scene: BackupScene) -> Any:
    """As the job that runs shows its progress."""
    with scene.database.read() as session:
        return session.scalars(select(Job.progress).where(Job.state == "running")).one()


def test_the_job_shows_how_far_its_merge_is(scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_run, "PROGRESS_PAUSE_S", 0.0)
    seen: list[Any] = []

    def course() -> Iterator[tuple[int, int]]:
        for done in (1, 4, 9):
            yield done * MIB, 10 * MIB
            seen.append(shown(scene))

    scene.domain.merges["vda"] = course()
    job = scene.run()
    assert (job.state, job.progress) == ("succeeded", None), job.error
    assert [(each["phase"], each["disk"], each["done_bytes"], each["total_bytes"]) for each in seen] == [
        ("merge", "vda", done * MIB, 10 * MIB) for done in (1, 4, 9)
    ]
    assert seen[-1]["rate_bytes_s"] > 0
    assert seen[-1]["seconds_left"] is not None


def test_a_job_that_is_cancelled_during_the_merge_ends_it_and_keeps_its_point(scene: BackupScene) -> None:
    job_id = scene.ask()
    run = scene.claim()

    def course() -> Iterator[tuple[int, int]]:
        yield MIB, 10 * MIB
        run.cancel_requested.set()
        yield 2 * MIB, 10 * MIB

    scene.domain.merges["vda"] = course()
    scene.execution.execute(run)
    assert (scene.job(job_id).state, len(scene.sealed()), scene.is_as_before()) == ("succeeded", 1, True)


def test_a_merge_without_space_is_told_and_the_next_backup_does_it(scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(merge_space, "why_not_enough", lambda overlay, left: no_space(overlay.target, left))
        scene.domain.merges["vda"] = iter([(MIB, 10 * MIB)] * 5)
        first = scene.run()
    assert (first.state, error_of(first)["code"], len(scene.sealed())) == ("failed", "merge_unfinished", 1)
    assert (len(scene.overlays()), scene.host.guest("db1").mirror("vda")) == (1, None)
    scene.domain.merges.clear()
    second = scene.run()
    assert (second.state, scene.is_as_before()) == ("succeeded", True), second.error


def no_space(target: str, left: int) -> MergeWithoutSpace:
    return MergeWithoutSpace(target=target, folder="/images", free_bytes=0, needed_bytes=left)


def test_a_guest_that_the_lack_of_space_has_paused_is_told(scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> None:
    def course() -> Iterator[tuple[int, int]]:
        scene.domain.pause_by_io_error()
        scene.domain.io_error_stays = True
        yield MIB, 10 * MIB

    monkeypatch.setattr(merge_space, "why_not_enough", lambda overlay, left: no_space(overlay.target, left))
    scene.domain.merges["vda"] = course()
    job = scene.run()
    assert error_of(job)["code"] == "merge_unfinished"
    assert merging.PAUSED in error_of(job)["facts"]["why"]
    assert job.result is not None
    assert job.result["backup"]["impact"]["paused_by_error"] is True
