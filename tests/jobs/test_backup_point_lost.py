"""A point whose files do not stay still: another client merges our overlays, or a program writes into the files below. It is not sealed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import RepositoryNotAnswering
from service.repository.store import Repository
from tests.scenes.backups import BackupScene, Steps, write
from tests.scenes.host import error_of

AWAY = RepositoryNotAnswering(path="/repository", step="copy_disk", silent_s=60.0)
LATER_BYTE, LATER_AT = 77, 5 << 20


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path, ("vda", "vdb"), repository_patience_seconds=60.0)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def merged_by_another(scene: BackupScene, target: str) -> Callable[[Repository], None]:
    """Another client merges and pivots, and the guest goes on in the file that is the point."""

    def act(_: Repository) -> None:
        guest = scene.host.guest("db1")
        guest.start_merge(target)
        guest.pivot(target)
        write(scene.domain.source(target), LATER_BYTE, LATER_AT)

    return act


def is_lost(scene: BackupScene, job: Job) -> None:
    assert (job.state, error_of(job)["code"], job.verdict) == ("failed", "point_lost_before_copied", "none")
    assert (scene.sealed(), scene.manifests(), scene.partial_folders(), scene.our_checkpoints()) == ([], [], [], [])
    assert scene.is_as_before()


def test_overlays_that_are_merged_before_the_copy(scene: BackupScene, steps: Steps) -> None:
    steps.before("begin_point", merged_by_another(scene, "vda"))
    is_lost(scene, scene.run())


def test_the_overlay_of_a_disk_that_is_merged_while_another_disk_is_copied(scene: BackupScene, steps: Steps) -> None:
    steps.after("copy_disk", merged_by_another(scene, "vdb"))
    is_lost(scene, scene.run())


def test_an_overlay_that_is_merged_while_the_job_waits_for_its_repository(scene: BackupScene, steps: Steps) -> None:
    def merge_and_be_away(repository: Repository) -> None:
        merged_by_another(scene, "vda")(repository)
        raise AWAY

    steps.before("copy_disk", merge_and_be_away)
    is_lost(scene, scene.run())
    assert steps.seen.count("copy_disk") == 1


@pytest.mark.parametrize("step", ["copy_disk", "compare_disk", "seal"])
def test_an_overlay_that_is_merged_in_a_step(scene: BackupScene, steps: Steps, step: str) -> None:
    steps.before(step, merged_by_another(scene, "vdb"))
    is_lost(scene, scene.run(compare="everything"))


def test_a_merge_that_another_client_has_begun(scene: BackupScene, steps: Steps) -> None:
    steps.before("begin_point", lambda _: scene.host.guest("db1").start_merge("vda"))
    assert error_of(scene.run())["code"] == "point_lost_before_copied"
    assert (scene.sealed(), scene.manifests()) == ([], [])


@pytest.mark.parametrize("is_running", [True, False])
def test_a_program_that_wrote_into_the_file_between_the_point_and_the_copy(scene: BackupScene, steps: Steps, is_running: bool) -> None:
    """The disk is on its overlay all the time, so only the file itself can tell."""
    base = scene.domain.source("vda")
    if not is_running:
        scene.domain.shut_off()
    steps.before("begin_point", lambda _: write(base, LATER_BYTE, LATER_AT))
    is_lost(scene, scene.run())


def test_a_program_that_writes_into_the_file_during_the_copy(scene: BackupScene, steps: Steps) -> None:
    base = scene.domain.source("vda")
    steps.before("put_file", lambda _: os.utime(base))
    is_lost(scene, scene.run())


def test_a_domain_that_was_off_and_is_started_during_the_copy_writes_to_its_overlays(scene: BackupScene, steps: Steps) -> None:
    scene.domain.shut_off()
    steps.before("copy_disk", lambda _: scene.domain.start())
    job = scene.run()
    assert (job.state, len(scene.sealed()), scene.is_as_before()) == ("succeeded", 1, True), job.error


def test_a_disk_that_is_taken_away_during_the_copy_is_a_part_of_the_point(scene: BackupScene, steps: Steps) -> None:
    """Nobody writes to its file."""
    steps.before("copy_disk", lambda _: scene.domain.detach("vdb"))
    scene.run()
    (manifest,) = scene.manifests()
    assert [disk.target for disk in manifest.disks] == ["vda", "vdb"]
