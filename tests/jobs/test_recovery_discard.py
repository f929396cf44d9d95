"""A worker that died while it took a point back: the merge is finished or stopped, and what it wrote to is no point."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from tests.jobs.deaths import die, recovered
from tests.jobs.scene import Scene

FALLS_SHORT: dict[str, Any] = {"freeze": {"mode": "off"}, "required_verdict": "filesystem", "on_shortfall": "discard"}


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def test_a_disk_that_was_being_merged_is_no_recovery_point(scene: Scene) -> None:
    scene.ask(**FALLS_SHORT)
    job = recovered(scene, die(scene, scene.domain.die_in("block_commit_active", after=True)))
    assert scene.domain.committed_into
    assert (job.recovery_point, scene.points()) == (None, [])
