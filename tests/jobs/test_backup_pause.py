"""No path out of a backup leaves a guest paused that could run: not an error of another kind, not a repository that hangs, not a death."""

from pathlib import Path

import pytest

from service.db.engine import Database
from service.errors import LibvirtCallFailed, MergeUnfinished, StorageRefused
from service.hypervisor.guest import Guest
from service.jobs import backup_end
from service.model.inventory import DomainState
from service.repository.store import Repository
from tests.scenes.backups import BackupScene, Steps
from tests.scenes.deaths import die, recovered
from tests.scenes.host import error_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def state(scene: BackupScene) -> DomainState:
    return scene.host.guest("db1").state()


def test_a_paused_guest_is_continued_before_anything_waits_for_the_repository(scene: BackupScene, steps: Steps) -> None:
    def pause(_: Repository) -> None:
        scene.domain.pause_by_io_error()
        raise StorageRefused(what="reading", path="vda", reason="Input/output error", errno=5)

    seen: list[DomainState] = []
    steps.before("copy_disk", pause)
    steps.before("drop_partial", lambda _: seen.append(state(scene)))
    job = scene.run()
    assert (error_of(job)["code"], seen, scene.is_as_before()) == (StorageRefused.code, [DomainState.running], True)


def test_a_guest_that_is_paused_while_a_sealed_point_is_merged_back_is_continued(scene: BackupScene, steps: Steps) -> None:
    steps.after("publish", lambda _: scene.domain.pause_by_io_error())
    job = scene.run()
    assert (job.state, state(scene), scene.is_as_before()) == ("succeeded", DomainState.running, True)


def test_a_guest_that_was_paused_when_its_worker_died_is_continued(scene: BackupScene, steps: Steps) -> None:
    moment = steps.die_in("copy_disk")
    scene.ask(max_attempts=1)
    lost = die(scene, moment)
    scene.domain.pause_by_io_error()
    recovered(scene, lost)
    assert (state(scene), scene.is_as_before()) == (DomainState.running, True)


def test_a_broken_checkpoint_that_cannot_be_forgotten_stops_the_merge_and_not_the_guest(
    scene: BackupScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(guest: Guest) -> None:
        scene.domain.pause_by_io_error()
        raise LibvirtCallFailed(call="virDomainCheckpointDelete", libvirt_code=1, message="no")

    monkeypatch.setattr(backup_end, "forget_broken_checkpoints", refuse)
    job = scene.run()
    assert (error_of(job)["code"], state(scene), len(scene.overlays())) == (MergeUnfinished.code, DomainState.running, 1)
