"""A backup from its claim to its end: names that need care, a key that is wrong, and things in the repository that are not ours."""

from pathlib import Path

import pytest
from sqlalchemy import update

from service.db.engine import Database
from service.db.tables import Repository as Row
from service.repository.store import Repository
from tests.repository.test_folder import ODD_NAMES
from tests.scenes.backups import BackupScene, Steps, write
from tests.scenes.host import error_of


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.mark.parametrize("name", [*ODD_NAMES, "x" * 255])
def test_a_repository_and_disks_below_an_odd_name_have_good_points(sqlite_database: Database, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    scene = BackupScene(sqlite_database, folder)
    first = scene.run(compare="everything")
    write(scene.domain.source("vda"), 7, 1 << 20)
    second = scene.run(compare="everything")
    assert (scene.levels(first), scene.levels(second)) == ({"vda": "full"}, {"vda": "bitmap"}), second.error
    with Repository(str(scene.path), scene.repository_id) as repository:
        tested = repository.call("verify_point", {"folder": scene.manifests()[-1].folder, "checks": ["bytes", "structure"]})
    assert (tested["bytes"]["faults"], tested["structure"]["faults"], scene.is_as_before()) == ([], [], True)


def with_key(scene: BackupScene, key: Path) -> None:
    with scene.database.write() as session:
        session.execute(update(Row).where(Row.id == scene.repository_id).values(key_reference=f"file:{key}"))


def test_a_key_that_is_not_there_freezes_nothing(sqlite_database: Database, tmp_path: Path) -> None:
    scene = BackupScene(sqlite_database, tmp_path)
    with_key(scene, tmp_path / "absent")
    job = scene.run()
    assert (error_of(job)["code"], scene.freezes(), scene.is_as_before()) == ("key_unusable", 0, True)


def test_a_full_backup_with_another_key_than_that_of_the_points_there_freezes_nothing(sqlite_database: Database, tmp_path: Path) -> None:
    """It would be a good point that the key of the others does not open."""
    key = tmp_path / "key"
    key.write_text("the first key")
    scene = BackupScene(sqlite_database, tmp_path)
    with_key(scene, key)
    assert scene.run().state == "succeeded"
    (first,) = scene.sealed()
    key.write_text("another key")
    of_another_domain = scene.run(domain=scene.add("db2"))
    jobs = [scene.run(level="full"), of_another_domain]
    assert [(error_of(job)["code"], [phase["name"] for phase in job.phases]) for job in jobs] == [("key_unusable", ["preflight"])] * 2
    sealed = [point.id for point in scene.sealed()]
    assert (scene.freezes(), sealed, scene.partial_folders(), scene.is_as_before()) == (1, [first.id], [], True)
    key.write_text("the first key")
    assert scene.run(level="full").state == "succeeded"


def test_an_increment_with_another_key_than_that_of_its_parent_is_no_point(sqlite_database: Database, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("the first key")
    scene = BackupScene(sqlite_database, tmp_path)
    with_key(scene, key)
    assert scene.run().state == "succeeded"
    key.write_text("another key")
    write(scene.domain.source("vda"), 7, 1 << 20)
    job = scene.run()
    assert (error_of(job)["code"], len(scene.sealed()), scene.partial_folders()) == ("key_unusable", 1, [])
    assert (scene.is_as_before(), len(scene.our_checkpoints())) == (True, 1)


def test_a_file_that_another_program_put_into_the_unfinished_point_is_not_sealed(
    sqlite_database: Database, tmp_path: Path, steps: Steps
) -> None:
    scene = BackupScene(sqlite_database, tmp_path)

    def intrude(_: object) -> None:
        (partial,) = scene.path.rglob(".partial-*")
        (partial / "strange").write_text("not ours")

    steps.before("seal", intrude)
    job = scene.run()
    assert (error_of(job)["code"], scene.sealed(), scene.our_checkpoints()) == ("repository_foreign_entry", [], [])
    assert scene.is_as_before()
    assert scene.run().state == "succeeded"


def test_a_link_in_place_of_the_folder_of_the_domain_is_not_followed(sqlite_database: Database, tmp_path: Path) -> None:
    scene = BackupScene(sqlite_database, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (scene.path / "domains").mkdir()
    (scene.path / "domains" / scene.domain.uuid()).symlink_to(elsewhere)
    job = scene.run()
    assert (error_of(job)["code"], list(elsewhere.iterdir()), scene.is_as_before()) == ("repository_foreign_entry", [], True)
