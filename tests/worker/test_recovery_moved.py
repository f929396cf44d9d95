"""What happened to the domain between the death and the look: undefined, migrated, its definition behind, its files gone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from service.db.engine import Database
from service.db.tables import Domain, Host, Job
from service.errors import DatabaseUnavailable
from service.freeze import after_death, guard_report
from service.model.intent import Overlay
from service.model.story import DEFINITION_AHEAD, DEFINITION_BEHIND, MAY_BE_FROZEN_THERE, MERGED_BY_ANOTHER, THAWED_THERE
from service.records import queue
from tests.fakes.domain import MIGRATED
from tests.scenes.deaths import die, doomed, recovered, story
from tests.scenes.host import FREEZE, THAW, Scene, error_of
from tests.scenes.told import tells


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def dead_in(scene: Scene, call: str, *, after: bool = False) -> str:
    scene.ask(freeze={"preflush": False})
    return die(scene, scene.domain.die_in(call, after=after))


def publish_at(scene: Scene, host: str, published_at: datetime) -> None:
    """Another host's worker shows this domain as running there."""
    with scene.database.write() as session:
        session.add(
            Host(
                id=host,
                started_at=published_at,
                last_seen=published_at,
                version="0",
                libvirt_uri="fake:///",
                versions={},
                libvirt_connected=True,
            )
        )
        session.flush()
        uuid, name = scene.domain.uuid(), scene.domain.name()
        session.add(Domain(host_id=host, id=uuid, name=name, state="running", published_at=published_at, document={}))


def thaws_of(scene: Scene, host: str) -> list[Job]:
    with scene.database.read() as session:
        return list(session.scalars(select(Job).where(Job.kind == "thaw", Job.host_id == host, Job.state == "queued")))


# --- not here any more ----------------------------------------------------------------------------


def test_a_domain_that_was_undefined_ends_the_job_and_names_what_is_left(scene: Scene) -> None:
    job_id = dead_in(scene, FREEZE, after=True)
    left = scene.overlays()
    scene.domain.exists = False
    job = recovered(scene, job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "domain_gone")
    assert scene.overlays() == left
    assert all(name in story(job) for name in left)
    assert tells(job, MAY_BE_FROZEN_THERE)


def test_a_domain_that_vanishes_while_recovery_looks_ends_the_job_too(scene: Scene) -> None:
    job_id = dead_in(scene, FREEZE, after=True)

    def vanish() -> None:
        scene.domain.exists = False

    scene.domain.when_next(THAW, vanish)
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"]) == ("failed", "domain_gone")


def test_a_frozen_guest_that_was_migrated_is_thawed_on_its_new_host(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    job_id = dead_in(scene, FREEZE, after=True)
    left = scene.overlays()
    publish_at(scene, "hv2", datetime.now(UTC))
    scene.domain.state_now = MIGRATED
    job = recovered(scene, job_id)
    (thaw,) = thaws_of(scene, "hv2")
    assert (thaw.domain_id, thaw.request["domain"]) == (scene.domain.uuid(), "db1")
    assert tells(job, THAWED_THERE, host="hv2", job_id=thaw.id)
    assert (job.state, error_of(job)["code"], scene.overlays()) == ("failed", "worker_lost", left)


def test_a_domain_that_left_this_host_for_good_is_thawed_where_it_is(scene: Scene) -> None:
    job_id = dead_in(scene, FREEZE, after=True)
    publish_at(scene, "hv2", datetime.now(UTC))
    scene.domain.exists = False
    recovered(scene, job_id)
    assert len(thaws_of(scene, "hv2")) == 1


def test_a_recovery_that_could_not_be_recorded_leaves_no_thaw_behind(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thaw of the same freeze would come late, and might end the window of the next job there."""
    job_id = dead_in(scene, FREEZE, after=True)
    publish_at(scene, "hv2", datetime.now(UTC))
    scene.domain.exists = False

    def goes_away(*_arguments: object) -> Job:
        raise DatabaseUnavailable(reason="it was restarted")

    with monkeypatch.context() as once:
        once.setattr(queue, "resolve_interrupted", goes_away)
        with pytest.raises(DatabaseUnavailable):
            recovered(scene, job_id)
    assert thaws_of(scene, "hv2") == []
    recovered(scene, job_id)
    assert len(thaws_of(scene, "hv2")) == 1


def test_what_another_host_published_long_before_the_job_says_nothing(scene: Scene) -> None:
    job_id = dead_in(scene, FREEZE, after=True)
    publish_at(scene, "hv2", datetime.now(UTC) - timedelta(hours=1))
    scene.domain.exists = False
    recovered(scene, job_id)
    assert thaws_of(scene, "hv2") == []


def test_a_guest_that_its_guard_had_thawed_is_not_thawed_on_the_new_host(scene: Scene, tmp_path: Path) -> None:
    job_id = dead_in(scene, FREEZE, after=True)
    report = guard_report.path_of(tmp_path, job_id)
    report.parent.mkdir(parents=True)
    report.write_text(f'{{"job_id": "{job_id}", "domain": "db1", "pid": 1, "state": "thawed", "count": 2}}')
    publish_at(scene, "hv2", datetime.now(UTC))
    scene.domain.exists = False
    recovered(scene, job_id, tmp_path)
    assert thaws_of(scene, "hv2") == []


def test_a_guest_that_was_reset_is_not_frozen_any_more(scene: Scene) -> None:
    job_id = dead_in(scene, FREEZE, after=True)
    scene.domain.agent.restart()
    job = recovered(scene, job_id)
    assert after_death.NOT_FROZEN in story(job)
    assert job.state == "queued"


# --- its definition -------------------------------------------------------------------------------


def test_a_definition_that_names_the_overlays_of_disks_that_never_moved_is_no_point(scene: Scene) -> None:
    """The guest still writes to the files below, so they show no point in time."""
    job_id = dead_in(scene, "snapshot_create")
    for target, name in zip(("vda", "vdb"), scene.overlays(), strict=True):
        scene.domain.put_on(target, scene.images / name, live=False)
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"], scene.points()) == ("failed", "disks_in_doubt", [])
    assert tells(job, DEFINITION_AHEAD, disks="vda, vdb")
    assert len(scene.overlays()) == 2


def test_a_definition_that_stayed_behind_is_told_because_the_next_start_would_lose_data(scene: Scene) -> None:
    job_id = dead_in(scene, "snapshot_create")
    for target, name in zip(("vda", "vdb"), scene.overlays(), strict=True):
        scene.domain.put_on(target, scene.images / name, saved=False)
    job = recovered(scene, job_id)
    assert [point.verdict for point in scene.points()] == ["crash"]
    assert tells(job, DEFINITION_BEHIND, disks="vda, vdb")
    assert DEFINITION_BEHIND.format(disks="vda, vdb").rstrip(".") in error_of(job)["detail"]


def test_a_domain_without_a_definition_is_judged_by_what_runs(scene: Scene) -> None:
    job_id = dead_in(scene, "snapshot_create", after=True)
    scene.domain.persistent = False
    job = recovered(scene, job_id)
    assert (job.verdict, len(scene.points())) == ("crash", 1)
    assert not tells(job, DEFINITION_BEHIND)
    assert not tells(job, DEFINITION_AHEAD)


def test_a_point_that_somebody_merges_back_meanwhile_is_no_point(scene: Scene) -> None:
    job_id = dead_in(scene, "snapshot_create", after=True)
    scene.domain.block_commit_active("vda")
    job = recovered(scene, job_id)
    assert (job.state, job.verdict, scene.points()) == ("failed", "none", [])
    assert tells(job, MERGED_BY_ANOTHER, disks="vda")


# --- its files ------------------------------------------------------------------------------------


def test_overlays_that_are_gone_already_are_no_fault(scene: Scene) -> None:
    job_id = dead_in(scene, FREEZE)
    for name in scene.overlays():
        (scene.images / name).unlink()
    assert recovered(scene, job_id).state == "queued"


def test_an_overlay_folder_that_is_gone_is_no_fault(sqlite_database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "overlays"
    folder.mkdir()
    scene = Scene(sqlite_database, tmp_path, ("vda", "vdb"), overlay_dir=folder)
    job_id = dead_in(scene, FREEZE)
    folder.rename(tmp_path / "unmounted")
    assert recovered(scene, job_id).state == "queued"


def test_an_overlay_that_cannot_be_removed_is_named_and_does_not_stop_the_job(sqlite_database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "overlays"
    folder.mkdir()
    scene = Scene(sqlite_database, tmp_path, ("vda", "vdb"), overlay_dir=folder)
    job_id = dead_in(scene, FREEZE)
    overlay = sorted(folder.iterdir())[0]
    overlay.unlink()
    overlay.mkdir()
    job = recovered(scene, job_id)
    assert job.state == "queued"
    assert str(overlay) in story(job)
    assert list(folder.iterdir()) == [overlay]


def test_a_point_whose_base_cannot_be_looked_at_is_kept_all_the_same(scene: Scene) -> None:
    job_id = dead_in(scene, "snapshot_create", after=True)
    for target in ("vda", "vdb"):
        (scene.images / f"db1-{target}.qcow2").unlink()
    job = recovered(scene, job_id)
    assert (job.verdict, len(scene.points())) == ("crash", 1)


def test_a_disk_that_was_taken_out_of_the_domain_leaves_the_overlays(scene: Scene) -> None:
    job_id = dead_in(scene, "snapshot_create")
    scene.domain.detach("vdb")
    job = recovered(scene, job_id)
    assert error_of(job)["code"] == "disks_in_doubt"
    assert len(scene.overlays()) == 2


def test_an_intent_reads_back_as_it_was_written(scene: Scene) -> None:
    scene.ask()
    run = doomed(scene)
    job = scene.job(die(scene, run.at_the_end, run))
    assert job.intent is not None
    assert [Overlay.from_document(document).path for document in job.intent["overlays"]] == [scene.domain.source(t) for t in ("vda", "vdb")]
    assert job.intent["will_freeze"] is False
