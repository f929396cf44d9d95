"""The worker of a restore dies at every step. What its recovery leaves is either the domain as before, or the restored domain."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.jobs import restore_domain, restore_files
from service.jobs.restore_flatten import Flattening
from service.jobs.restore_intent import RestoreIntent
from service.jobs.restore_source import Archive
from service.model.inventory import DomainState
from tests.fakes.domain import RUNNING, FakeDomain
from tests.fakes.libvirt_errors import libvirt_error
from tests.jobs.restoring import RestoreScene, first_byte
from tests.scenes.deaths import die, doomed, recovered
from tests.scenes.graves import Grave
from tests.scenes.host import error_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> RestoreScene:
    return RestoreScene(sqlite_database, tmp_path)


BEFORE_THE_SWITCH: dict[str, tuple[Any, str, bool, str | None]] = {
    "while the checksums are compared": (Archive, "call", False, "verify_point"),
    "before the first file": (Archive, "call", False, "restore_disk"),
    "after a file was made": (Archive, "call", True, "restore_disk"),
    "before a file has its name": (restore_files, "publish", False, None),
    "after a file has its name": (restore_files, "publish", True, None),
}


@pytest.mark.parametrize("moment", BEFORE_THE_SWITCH)
@pytest.mark.parametrize("mode", ["new", "in_place"])
def test_a_death_before_the_domain_is_switched_leaves_nothing_and_the_next_attempt_restores(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, mode: str, moment: str
) -> None:
    owner, name, after, step = BEFORE_THE_SWITCH[moment]
    grave = Grave(monkeypatch, owner, name, after=after, step=step)
    scene.ask_restore(mode, start=True)
    job = recovered(scene, die(scene, grave.reached))
    assert job.state == "queued", job.error
    assert scene.new_files() == []
    assert scene.new_domains() == []
    assert scene.domain.source("vda") == str(scene.disk_file)
    assert_restored(scene, mode, next_attempt(scene, job))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["_defined", "_start"])
@pytest.mark.parametrize("mode", ["new", "in_place", "instant"])
def test_a_death_around_the_switch_is_completed(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, mode: str, step: str, *, after: bool
) -> None:
    grave = Grave(monkeypatch, restore_domain, step, after=after)
    scene.ask_restore(mode, start=True)
    job = recovered(scene, die(scene, grave.reached))
    assert job.state == "queued", job.error
    assert_restored(scene, mode, next_attempt(scene, job))


def test_a_death_while_the_domain_shuts_down_is_completed_if_it_is_off(scene: RestoreScene) -> None:
    scene.domain.resume()
    moment = scene.domain.die_in("shut_down", after=True)
    scene.ask_restore("in_place", start=True, stop=True)
    job = recovered(scene, die(scene, moment))
    assert job.state == "queued", job.error
    assert_restored(scene, "in_place", next_attempt(scene, job))


def test_a_death_before_the_domain_shuts_down_leaves_it_running_as_it_was(scene: RestoreScene) -> None:
    scene.domain.resume()
    moment = scene.domain.die_in("shut_down")
    scene.ask_restore("in_place", start=True, stop=True)
    job = recovered(scene, die(scene, moment))
    assert (job.state, scene.domain.state_now, scene.domain.source("vda")) == ("queued", RUNNING, str(scene.disk_file))
    assert scene.new_files() == []


@pytest.mark.parametrize("is_damaged", [False, True], ids=["the restored domain does not start", "the point was damaged"])
def test_a_domain_that_went_down_after_the_death_is_started_again_when_the_next_attempt_fails(
    scene: RestoreScene, *, is_damaged: bool
) -> None:
    scene.domain.resume()
    scene.domain.ignores_shutdown = True
    moment = scene.domain.die_in("shut_down", after=True)
    scene.ask_restore("in_place", start=True, stop=True)
    job = recovered(scene, die(scene, moment))
    assert (job.state, scene.domain.state_now, scene.new_files()) == ("queued", RUNNING, [])
    scene.domain.shut_off()
    if is_damaged:
        (scene.sealed.folder_of(scene.point) / "vda.qcow2").unlink()
    else:
        scene.domain.fail_next("start", libvirt_error(1, "internal error: qemu unexpectedly closed the monitor"))
    job = next_attempt(scene, job)
    assert job.state == "failed"
    assert (scene.domain.state_now, scene.domain.source("vda"), scene.new_files()) == (RUNNING, str(scene.disk_file), [])


def test_a_death_while_the_disks_are_made_whole_is_continued_without_another_start(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    grave = Grave(monkeypatch, Flattening, "_step", after=True)
    scene.ask_restore("instant")
    job = recovered(scene, die(scene, grave.reached))
    assert job.state == "queued", job.error
    (new,) = scene.new_domains()
    starts = new.log.count("start")
    job = next_attempt(scene, job)
    assert_restored(scene, "instant", job)
    assert new.log.count("start") == starts
    assert [phase["name"] for phase in job.phases].count("write") == 1


@pytest.mark.parametrize("mode", ["new", "in_place", "instant"])
def test_a_death_before_the_last_write_ends_with_the_restored_domain(scene: RestoreScene, mode: str) -> None:
    scene.ask_restore(mode, start=True)
    run = doomed(scene)
    job = recovered(scene, die(scene, run.at_the_end, run))
    assert job.state == "queued", job.error
    assert_restored(scene, mode, next_attempt(scene, job))


def test_the_last_attempt_that_dies_at_the_switch_leaves_the_restored_domain(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    grave = Grave(monkeypatch, restore_domain, "_start", after=True)
    scene.ask_restore("in_place", start=True, max_attempts=1)
    job = recovered(scene, die(scene, grave.reached))
    assert (job.state, error_of(job)["code"]) == ("failed", "worker_lost")
    assert first_byte(scene.domain.source("vda")) == 2
    assert scene.domain.state_now == RUNNING


def test_a_recovery_that_cannot_start_the_restored_domain_takes_it_back(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    grave = Grave(monkeypatch, restore_domain, "_start", after=False)
    scene.ask_restore("in_place", start=True)
    job_id = die(scene, grave.reached)
    scene.domain.fail_next("start", libvirt_error(1, "internal error: qemu unexpectedly closed the monitor"))
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"]) == ("failed", "restored_domain_failed")
    assert scene.domain.source("vda") == str(scene.disk_file)
    assert scene.new_files() == []


def test_a_death_after_the_new_disks_were_removed_again_leaves_the_old_ones(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition that names disks that are not there would be taken for a restored domain, if the domain shall not start."""
    grave = Grave(monkeypatch, restore_domain, "_defined", after=False)
    scene.ask_restore("in_place", start=False)
    job_id = die(scene, grave.reached)
    for name in scene.new_files():
        (scene.images / name).unlink()
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"]) == ("failed", "restored_domain_failed")
    assert scene.domain.source("vda") == str(scene.disk_file)


def test_a_domain_that_is_taken_back_starts_after_its_tpm_has_its_earlier_state(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.domain.resume()
    seen: list[DomainState] = []
    real = restore_files.remove_all

    def remove_all(intent: RestoreIntent, **more: Any) -> list[str]:
        seen.append(scene.host.guest("db1").state())
        return real(intent, **more)

    monkeypatch.setattr(restore_files, "remove_all", remove_all)
    scene.domain.fail_next("start", libvirt_error(1, "internal error: qemu unexpectedly closed the monitor"))
    scene.restore("in_place", start=True, stop=True)
    assert (seen, scene.domain.state_now) == ([DomainState.shut_off], RUNNING)


def next_attempt(scene: RestoreScene, job: Job) -> Job:
    scene.execution.execute(scene.claim())
    return scene.job(job.id)


def assert_restored(scene: RestoreScene, mode: str, job: Job) -> None:
    assert job.state == "succeeded", error_of(job)
    domain = restored_domain(scene, mode)
    assert domain.state_now == RUNNING
    assert mode == "instant" or first_byte(domain.source("vda")) == 2
    assert scene.new_files() == [Path(domain.source("vda")).name]


def restored_domain(scene: RestoreScene, mode: str) -> FakeDomain:
    if mode == "in_place":
        assert scene.new_domains() == []
        return scene.domain
    (new,) = scene.new_domains()
    return new
