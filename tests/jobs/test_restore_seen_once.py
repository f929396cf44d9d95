"""What is wrong with a point at one read only is no damage: its repository went and came back."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.errors import PointDamaged
from service.jobs import restore_source
from service.jobs.restore_intent import RestoreIntent
from service.jobs.restore_writing import Writing
from tests.jobs.restoring import RestoreScene
from tests.scenes.host import error_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> RestoreScene:
    return RestoreScene(sqlite_database, tmp_path)


@pytest.mark.parametrize("mode", ["new", "in_place", "instant"])
def test_what_is_wrong_at_one_read_only_is_no_damage_to_a_restore(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The repository went and came back within the read."""
    opened = restore_source.Archive.call
    wrong = [{"folder": "domains/x/y", "file": "vda.qcow2", "reason": "it is missing"}]

    def call(archive: restore_source.Archive, step: str, **arguments: Any) -> dict[str, Any]:
        answer = opened(archive, step, **arguments)
        if step in ("verify_point", "look_at_files") and wrong:
            found = answer["bytes"] if step == "verify_point" else answer
            found["faults"] = [wrong.pop()]
        return answer

    monkeypatch.setattr(restore_source.Archive, "call", call)
    assert scene.restore(mode).state == "succeeded"
    assert (wrong, scene.point_row().state) == ([], "sealed")


def test_a_block_that_was_wrong_only_while_it_was_copied_ends_the_restore_and_leaves_the_point_good(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(writing: Writing) -> RestoreIntent:
        raise PointDamaged(point=scene.point, path="vda.qcow2", reason="block 3 differs", next_good=None)

    monkeypatch.setattr(Writing, "run", copied)
    assert error_of(scene.restore("new"))["code"] == "repository_refused"
    assert scene.point_row().state == "sealed"
