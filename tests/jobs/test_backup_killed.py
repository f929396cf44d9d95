"""A backup, and the process that works in its repository is killed from outside."""

from pathlib import Path

import pytest

from service.db.engine import Database
from tests.scenes.backups import BackupScene, write
from tests.scenes.killed_hands import KilledHands

BEFORE_THE_FREEZE = ("sweep", "read_point", "check_parent")
IN_THE_COPY = ("inspect_source", "begin_point", "put_file", "copy_disk", "compare_disk", "seal", "put_key", "publish")


@pytest.mark.parametrize("step", [*BEFORE_THE_FREEZE, *IN_THE_COPY])
def test_a_backup_whose_process_is_killed_ends_well(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    scene = BackupScene(sqlite_database, tmp_path)
    scene.run()
    write(scene.domain.source("vda"), 7, 1 << 20)
    hands = KilledHands(monkeypatch, **{step: 1})
    job = scene.run(compare="everything")
    assert (job.state, scene.levels(job), hands.left) == ("succeeded", {"vda": "bitmap"}, {step: 0}), job.error
    assert (scene.freezes(), len(scene.sealed()), scene.partial_folders(), scene.is_as_before()) == (2, 2, [], True)
