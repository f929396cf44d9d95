"""A backup whose worker dies, or that is cancelled: at every phase. The guest is frozen once, and nothing is left behind without a word."""

import threading
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.jobs.run import JobRun
from service.records import queue
from service.repository.store import Repository
from tests.scenes.backups import BackupScene, Steps
from tests.scenes.deaths import die, doomed, recovered
from tests.scenes.host import error_of

IN_THE_COPY = ("begin_point", "put_file", "copy_disk", "compare_disk", "seal", "publish")
"""Steps in the repository after the point is taken."""


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def ends_well(scene: BackupScene, job: Job) -> None:
    assert (job.state, job.error, job.intent) == ("succeeded", None, None)
    (point,), (manifest,) = scene.sealed(), scene.manifests()
    assert point.id == manifest.point_id
    assert job.recovery_point is not None
    assert job.recovery_point["id"] == point.id
    assert scene.is_as_before()
    assert scene.partial_folders() == []
    assert scene.our_checkpoints() == [manifest.disks[0].checkpoint]


# --- death ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", IN_THE_COPY)
def test_after_a_death_in_the_copy_only_the_copy_continues(scene: BackupScene, steps: Steps, step: str, after: bool) -> None:
    moment = steps.die_in(step, after=after)
    scene.ask()
    job = recovered(scene, die(scene, moment))
    assert (job.state, job.verdict) == ("queued", "filesystem")
    ends_well(scene, scene.run_again(job.id))
    assert scene.freezes() == 1


def test_a_disk_that_was_copied_is_not_copied_again(sqlite_database: Database, tmp_path: Path, steps: Steps) -> None:
    scene = BackupScene(sqlite_database, tmp_path, ("vda", "vdb"))
    moment = steps.die_in("seal")
    scene.ask()
    job = recovered(scene, die(scene, moment))
    assert scene.run_again(job.id).state == "succeeded"
    assert steps.seen.count("copy_disk") == 2


@pytest.mark.parametrize("call", ["block_commit_active", "block_pivot", "checkpoint_delete"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_after_a_death_in_the_merge_only_the_merge_continues(scene: BackupScene, steps: Steps, call: str, after: bool) -> None:
    scene.run()
    moment = scene.domain.die_in(call, after=after)
    scene.ask()
    job = recovered(scene, die(scene, moment))
    last = scene.run_again(job.id)
    assert (last.state, last.error, len(scene.sealed())) == ("succeeded", None, 2)
    assert (scene.is_as_before(), len(scene.our_checkpoints()), steps.seen.count("publish")) == (True, 1, 2)


def test_after_a_death_before_the_last_write_the_point_is_on_record_once(scene: BackupScene) -> None:
    scene.ask()
    run = doomed(scene)
    job = recovered(scene, die(scene, run.at_the_end, run))
    ends_well(scene, scene.run_again(job.id))


@pytest.mark.parametrize("step", ["look"])
def test_after_a_death_in_the_preflight_the_job_begins_again(scene: BackupScene, steps: Steps, step: str) -> None:
    moment = steps.die_in(step)
    scene.ask()
    job = recovered(scene, die(scene, moment))
    ends_well(scene, scene.run_again(job.id))


@pytest.mark.parametrize("call", ["checkpoint_create", "snapshot_create", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_point_that_was_not_judged_is_taken_again(scene: BackupScene, call: str, after: bool) -> None:
    moment = scene.domain.die_in(call, after=after)
    scene.ask()
    job = recovered(scene, die(scene, moment))
    assert (job.state, scene.is_as_before(), scene.our_checkpoints()) == ("queued", True, [])
    ends_well(scene, scene.run_again(job.id))


def test_the_last_attempt_leaves_no_overlay(scene: BackupScene, steps: Steps) -> None:
    moment = steps.die_in("copy_disk")
    scene.ask(max_attempts=1)
    job = recovered(scene, die(scene, moment))
    assert (job.state, error_of(job)["code"], job.verdict) == ("failed", "worker_lost", "none")
    assert (scene.is_as_before(), scene.our_checkpoints(), scene.sealed()) == (True, [], [])


def test_the_last_attempt_ends_the_merge_of_a_sealed_point(scene: BackupScene) -> None:
    moment = scene.domain.die_in("block_pivot")
    scene.ask(max_attempts=1)
    job = recovered(scene, die(scene, moment))
    assert (job.state, len(scene.sealed()), scene.is_as_before()) == ("failed", 1, True)
    assert job.recovery_point is not None


def test_a_point_whose_overlays_another_client_merged_meanwhile_is_taken_again(scene: BackupScene, steps: Steps) -> None:
    moment = steps.die_in("copy_disk")
    scene.ask()
    job_id = die(scene, moment)
    guest = scene.host.guest("db1")
    guest.start_merge("vda")
    guest.pivot("vda")
    job = scene.run_again(recovered(scene, job_id).id)
    assert (job.state, len(scene.sealed()), scene.freezes(), scene.is_as_before()) == ("succeeded", 1, 2, True)


def test_a_death_with_a_domain_that_is_off_gives_its_checkpoints_back(scene: BackupScene) -> None:
    scene.run()
    scene.domain.shut_off()
    (checkpoint,) = scene.our_checkpoints()
    moment = scene.domain.die_in("snapshot_create", after=True)
    scene.ask()
    job = recovered(scene, die(scene, moment))
    assert (scene.our_checkpoints(), scene.is_as_before()) == ([checkpoint], True)
    assert scene.run_again(job.id).state == "succeeded"


def test_a_worker_that_is_stopped_leaves_the_copy_to_the_next_one(scene: BackupScene, steps: Steps) -> None:
    job_id = scene.ask()
    run = scene.claim()

    def stop(_: Repository) -> None:
        run.ends_at = 0.0

    steps.before("copy_disk", stop)
    scene.execution.execute(run)
    scene.die_in(run)
    job = recovered(scene, job_id)
    ends_well(scene, scene.run_again(job.id))
    assert scene.freezes() == 1


# --- cancel ---------------------------------------------------------------------------------------


def cancelled_in(scene: BackupScene, steps: Steps, step: str) -> Job:
    job_id = scene.ask()
    run: JobRun = scene.claim()
    steps.before(step, lambda _: run.cancel_requested.set())
    scene.execution.execute(run)
    return scene.job(job_id)


@pytest.mark.parametrize("step", ["look", "begin_point", "put_file", "copy_disk", "compare_disk", "seal"])
def test_a_job_that_is_cancelled_before_it_is_sealed_leaves_nothing(scene: BackupScene, steps: Steps, step: str) -> None:
    job = cancelled_in(scene, steps, step)
    assert (job.state, error_of(job)["code"]) == ("cancelled", "job_cancelled")
    assert (scene.is_as_before(), scene.our_checkpoints(), scene.sealed(), scene.partial_folders()) == (True, [], [], [])


def test_a_job_that_is_cancelled_while_it_is_published_has_its_point(scene: BackupScene, steps: Steps) -> None:
    job = cancelled_in(scene, steps, "publish")
    assert (job.state, len(scene.sealed()), scene.is_as_before()) == ("succeeded", 1, True)


def test_a_cancelled_job_whose_worker_died_leaves_nothing(scene: BackupScene, steps: Steps) -> None:
    moment = steps.die_in("copy_disk")
    scene.ask()
    job_id = die(scene, moment)
    with scene.database.write() as session:
        queue.request_cancel(session, job_id)
    job = recovered(scene, job_id)
    assert (job.state, scene.is_as_before(), scene.our_checkpoints()) == ("cancelled", True, [])


def test_a_job_that_is_cancelled_between_two_attempts_leaves_nothing(scene: BackupScene, steps: Steps) -> None:
    moment = steps.die_in("copy_disk")
    scene.ask()
    job_id = die(scene, moment)
    assert recovered(scene, job_id).state == "queued"
    with scene.database.write() as session:
        queue.request_cancel(session, job_id)
    job = scene.run_again(job_id)
    assert (job.state, error_of(job)["code"]) == ("cancelled", "job_cancelled")
    assert (scene.is_as_before(), scene.our_checkpoints(), scene.sealed(), scene.partial_folders()) == (True, [], [], [])


# --- a lost lease ---------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_stops_to_copy_and_touches_nothing(scene: BackupScene, steps: Steps) -> None:
    job_id = scene.ask()
    run = scene.claim()
    seen = threading.Event()

    def lose(_: Repository) -> None:
        scene.die_in(run)
        run.lease_lost.set()
        seen.set()

    steps.before("copy_disk", lose)
    scene.execution.execute(run)
    assert seen.is_set()
    assert len(scene.overlays()) == 1
    job = recovered(scene, job_id)
    ends_well(scene, scene.run_again(job.id))
