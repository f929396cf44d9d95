"""A disk gets no more files below it than libvirt can start: the snapshot is refused before the freeze, and a backup is not."""

from pathlib import Path

import pytest

from service.db.engine import Database
from tests.scenes.backups import BackupScene
from tests.scenes.beside_disk import BesideScene
from tests.scenes.host import FREEZE, error_of

LIMIT = 2


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BesideScene:
    scene = BesideScene(sqlite_database, tmp_path, max_chain_depth=LIMIT)
    scene.take(LIMIT)
    return scene


@pytest.mark.parametrize("is_off", [False, True], ids=["runs", "off"])
def test_a_snapshot_that_passes_the_limit_is_refused_before_the_freeze(scene: BesideScene, is_off: bool) -> None:
    if is_off:
        scene.domain.shut_off()
    files, freezes = scene.files(), scene.domain.log.count(FREEZE)
    job = scene.run("snapshot")
    assert (job.state, error_of(job)["code"], job.verdict) == ("failed", "chain_too_deep", "none")
    assert {name: error_of(job)["facts"][name] for name in ("disk", "depth", "limit")} == {"disk": "vda", "depth": LIMIT, "limit": LIMIT}
    assert (scene.files(), scene.domain.log.count(FREEZE)) == (files, freezes)


def test_a_merge_makes_room_for_the_next_snapshot(scene: BesideScene) -> None:
    assert scene.merge(scene.point_ids[0]).error is None
    assert scene.run("snapshot").state == "succeeded"


def test_preflight_tells_it(scene: BesideScene) -> None:
    job = scene.run("preflight")
    assert job.result is not None
    assert [check["status"] for check in job.result["checks"] if check["code"] == "chain_depth"] == ["fail"]


def test_a_backup_is_not_refused_as_it_leaves_no_file(sqlite_database: Database, tmp_path: Path) -> None:
    scene = BackupScene(sqlite_database, tmp_path, max_chain_depth=1)
    assert scene.run("snapshot").state == "succeeded"
    assert error_of(scene.run("snapshot"))["code"] == "chain_too_deep"
    job = scene.run()
    assert job.state == "succeeded", job.error
