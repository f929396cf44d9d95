"""A sealed point comes back: as files, as a new domain, and below the domain that was backed up."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.model.windows.well_known_writers import NTDS
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


# --- only the plan --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["new", "in_place", "instant", "files"])
def test_a_plan_says_where_everything_will_be_and_touches_nothing(scene: RestoreScene, tmp_path: Path, mode: str) -> None:
    (tmp_path / "out").mkdir()
    where = {"folder": str(tmp_path / "out")} if mode == "files" else {}
    plan = plan_of(scene, mode, **where)
    folder = where.get("folder", str(scene.images))
    assert {Path(path).parent for path in plan["files"].values()} == {Path(folder)}
    assert [disk["path"] for disk in plan["disks"]] == list(plan["files"].values())
    assert list(plan["free_bytes"]) == [folder]
    assert plan["needed_bytes"] is not None
    assert (scene.new_files(), scene.new_domains(), list((tmp_path / "out").iterdir())) == ([], [], [])
    assert scene.domain.source("vda") == str(scene.disk_file)


def plan_of(scene: RestoreScene, mode: str, **request: Any) -> Any:
    job = scene.restore(mode, plan_only=True, **request)
    assert (job.state, [name for name, _ in phases_of(job)]) == ("succeeded", ["plan"]), error_of(job)
    assert job.result is not None
    return job.result["restore"]["plan"]


def test_a_plan_says_what_is_new_without_values_that_the_restore_will_not_have(scene: RestoreScene) -> None:
    plan = plan_of(scene, "new")
    parts = {part["what"]: (part["fate"], part["values"]) for part in plan["identity"]}
    assert (plan["domain"]["id"], parts["uuid"]) == (None, ("new", {"uuid": None}))
    assert parts["genid"][0] == "absent"


def test_a_plan_tells_how_the_definition_is_changed_and_why(scene: RestoreScene) -> None:
    spare = '<disk type="file" device="disk"><source file="/elsewhere/vdz.qcow2"/><target dev="vdz"/></disk></devices>'
    definition = scene.host.guest("db1").inactive_xml().replace("</devices>", spare)
    scene.point = scene.seal(definition=definition)
    (change,) = plan_of(scene, "new")["adaptations"]
    assert (change["was"], change["becomes"]) == ("/elsewhere/vdz.qcow2", None)
    assert change["why"]


def test_a_domain_controller_without_a_generation_id_is_refused_by_the_plan(scene: RestoreScene) -> None:
    scene.point = scene.seal(vss={"applicable": True, "writers": [{"name": "NTDS", "class_id": NTDS}]})
    job = scene.restore("new", plan_only=True)
    assert (job.state, error_of(job)["code"]) == ("failed", "usn_rollback_risk")
