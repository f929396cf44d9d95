"""A sealed point comes back: as files, as a new domain, and below the domain that was backed up."""

from pathlib import Path

import pytest

from service.db.engine import Database
from tests.fakes.domain import RUNNING
from tests.jobs.restoring import RestoreScene, first_byte
from tests.repository.disks import are_identical
from tests.scenes.host import error_of, phases_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> RestoreScene:
    return RestoreScene(sqlite_database, tmp_path)


def test_files_are_written_into_a_folder_and_no_domain_is_touched(scene: RestoreScene, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    job = scene.restore("files", folder=str(folder))
    assert (job.state, job.error) == ("succeeded", None)
    assert [path.name for path in folder.iterdir()] == ["vda.qcow2"]
    assert first_byte(folder / "vda.qcow2") == 2
    assert scene.new_domains() == []
    assert [name for name, _ in phases_of(job)] == ["plan", "checksums", "write"]


def test_a_new_domain_lies_beside_the_old_one_with_an_identity_of_its_own(scene: RestoreScene) -> None:
    job = scene.restore("new", start=True)
    assert (job.state, job.error) == ("succeeded", None)
    (new,) = scene.new_domains()
    assert new.uuid() != scene.domain.uuid()
    assert new.name() != scene.domain.name()
    assert new.state_now == RUNNING
    assert first_byte(new.source("vda")) == 2
    assert job.result is not None
    assert job.result["restore"]["domain"] == {"id": new.uuid(), "name": new.name()}
    assert job.result["restore"]["has_run"] is True
    assert first_byte(scene.disk_file) == 9


def test_in_place_the_domain_gets_the_disks_of_the_point_and_the_old_ones_are_kept_and_named(scene: RestoreScene) -> None:
    job = scene.restore("in_place", start=True)
    assert (job.state, job.error) == ("succeeded", None)
    assert scene.domain.source("vda") != str(scene.disk_file)
    assert first_byte(scene.domain.source("vda")) == 2
    assert scene.domain.state_now == RUNNING
    assert job.result is not None
    assert job.result["restore"]["old_disks"] == [str(scene.disk_file)]
    assert scene.disk_file.exists()


def test_an_instant_restore_boots_over_the_repository_and_ends_standing_alone(scene: RestoreScene) -> None:
    job = scene.restore("instant")
    assert (job.state, job.error) == ("succeeded", None)
    (new,) = scene.new_domains()
    assert new.state_now == RUNNING
    assert job.result is not None
    assert job.result["restore"]["reads_repository"] == []


def test_the_older_point_is_restored_as_it_was(scene: RestoreScene) -> None:
    job = scene.restore("new", scene.full)
    assert job.state == "succeeded", error_of(job)
    (new,) = scene.new_domains()
    assert first_byte(new.source("vda")) == 1
    assert not are_identical(Path(new.source("vda")), scene.disk_file)
